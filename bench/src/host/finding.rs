//! What an area of the doctor has to say: facts in order, each with a status and, where it is not good, a hint.

use isolab_reports::model::{Fact, Status};

/// The findings of one area, in the order in which they are to be read.
pub(crate) struct Findings {
    area: &'static str,
    facts: Vec<Fact>,
}

impl Findings {
    /// No findings yet on `area`.
    pub(crate) fn on(area: &'static str) -> Self {
        Self { area, facts: Vec::new() }
    }

    /// Something that is as the lab would have it.
    pub(crate) fn ok(&mut self, name: &str, value: impl Into<String>) {
        self.push(name, value.into(), Status::Ok, None);
    }

    /// A fact that is neither good nor bad.
    pub(crate) fn info(&mut self, name: &str, value: impl Into<String>) {
        self.push(name, value.into(), Status::Info, None);
    }

    /// Something that works, but costs figures or features; `hint` says what to do.
    pub(crate) fn warn(&mut self, name: &str, value: impl Into<String>, hint: impl Into<String>) {
        self.push(name, value.into(), Status::Warn, Some(hint.into()));
    }

    /// Something that the lab could use and that is not there; `hint` says how to get it.
    pub(crate) fn missing(&mut self, name: &str, value: impl Into<String>, hint: impl Into<String>) {
        self.push(name, value.into(), Status::Missing, Some(hint.into()));
    }

    /// The facts, for the record.
    pub(crate) fn into_facts(self) -> Vec<Fact> {
        self.facts
    }

    fn push(&mut self, name: &str, value: String, status: Status, hint: Option<String>) {
        self.facts.push(Fact { area: self.area.into(), name: name.into(), value, status, hint });
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use isolab_reports::model::{Fact, Status};

    /// The fact called `name`, for a test that expects it.
    pub(crate) fn fact<'a>(facts: &'a [Fact], name: &str) -> &'a Fact {
        facts.iter().find(|fact| fact.name == name).unwrap_or_else(|| panic!("no fact `{name}` among {facts:#?}"))
    }

    /// Every fact that is not good tells its reader what to do.
    pub(crate) fn assert_hints(facts: &[Fact]) {
        for fact in facts.iter().filter(|fact| matches!(fact.status, Status::Warn | Status::Missing)) {
            assert!(fact.hint.as_ref().is_some_and(|hint| !hint.is_empty()), "no hint: {fact:?}");
        }
    }
}
