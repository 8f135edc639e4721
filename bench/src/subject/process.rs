//! The payload as a plain process of the host: what everything else is held against.

use isolab_reports::model::Role;

use super::launch::Launch;
use super::{About, Lab, Nonce, Subject};

pub(super) struct Process<'a> {
    lab: &'a Lab,
    about: About,
}

impl<'a> Process<'a> {
    pub(super) fn new(lab: &'a Lab) -> Self {
        let about = About {
            name: "process",
            role: Role::Baseline,
            about: "The payload as a host process: no isolation; the host's kernel runs beneath it.",
            command: ["isolab-payload", "{}"].map(str::to_owned).into(),
            version: None,
        };
        Self { lab, about }
    }
}

impl Subject for Process<'_> {
    fn about(&self) -> &About {
        &self.about
    }

    fn launch(&self, _: u64, nonce: &Nonce) -> Result<Launch, String> {
        Ok(Launch::new(self.lab, self.lab.payload(), vec![nonce.to_string().into()], nonce.token()))
    }
}
