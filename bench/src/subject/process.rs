//! The payload as a plain process of the host: what everything else is held against.

use isolab_reports::model::Role;

use super::launch::{Farewell, Launch, PATIENCE};
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
        Ok(Launch {
            program: self.lab.payload().to_owned(),
            arguments: vec![nonce.to_string().into()],
            folder: self.lab.scratch().path().to_owned(),
            token: nonce.token(),
            farewell: Farewell::Order,
            owned: Vec::new(),
            tells: false,
            remembers: None,
            detached: None,
            undo: None,
            litter: None,
            patience: PATIENCE,
        })
    }
}
