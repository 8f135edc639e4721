//! The Dockerfile: a text, a line an instruction, read whole before anything is built.
//!
//! The grammar is the documented one (docs.docker.com/reference/dockerfile). It is read in three steps, each in a file:
//! `lines` puts continued lines together and takes here-documents out of them, `instruction` tells what a line asks for,
//! `mount` understands what a RUN has mounted, `words` splits arguments and substitutes variables. Substitution comes last, while building: a variable's value is
//! known only at its place.

mod error;
mod instruction;
mod lines;
mod mount;
mod words;

pub use error::{DockerfileError, Problem};
pub use instruction::{Command, Copy, Health, Instruction, Run};
pub use lines::HereDocument;
pub use mount::{MountKind, RunMount};
pub use words::Substitution;

use lines::Line;

/// A Dockerfile that has been read and whose form is right.
#[derive(Debug)]
pub struct Dockerfile {
    /// What comes before the first stage: ARG and nothing else.
    pub before: Vec<Step>,
    /// In the order of the file; at least one.
    pub stages: Vec<Stage>,
    /// What quotes a character and continues a line: a backslash unless the file says otherwise.
    pub escape: char,
}

/// One image's instructions: a FROM and what follows it.
#[derive(Debug)]
pub struct Stage {
    /// What it is called by others, in lower case.
    pub name: Option<String>,
    /// The image or stage it begins with; variables are not substituted yet.
    pub base: String,
    /// The platform that is asked for, not substituted yet.
    pub platform: Option<String>,
    /// The line of its FROM, counted from 1.
    pub line: usize,
    /// What is done, in order.
    pub steps: Vec<Step>,
}

/// An instruction and where it stands.
#[derive(Debug)]
pub struct Step {
    /// Its first line, counted from 1.
    pub line: usize,
    /// As it was written, continued lines put together.
    pub text: String,
    /// What it asks for.
    pub instruction: Instruction,
}

impl Dockerfile {
    /// Reads a file's text.
    pub fn parse(text: &str) -> Result<Self, DockerfileError> {
        let (escape, lines) = lines::read(text)?;
        let mut file = Self { before: Vec::new(), stages: Vec::new(), escape };
        for line in lines {
            file.add(&line)?;
        }
        if file.stages.is_empty() { Err(DockerfileError::at(1, Problem::NoStage)) } else { Ok(file) }
    }

    /// Reads one instruction, as ONBUILD keeps it in an image.
    pub fn parse_step(text: &str) -> Result<Step, DockerfileError> {
        let (escape, lines) = lines::read(text)?;
        let mut steps = lines.iter().map(|line| step(line, escape));
        steps.next().unwrap_or(Err(DockerfileError::at(1, Problem::NoStage)))
    }

    fn add(&mut self, line: &Line) -> Result<(), DockerfileError> {
        let Step { line: number, text, instruction } = step(line, self.escape)?;
        match (instruction, self.stages.last_mut()) {
            (Instruction::From { image, platform, name }, _) => {
                if name.is_some() && self.stages.iter().any(|stage| stage.name == name) {
                    let name = name.unwrap_or_default();
                    return Err(DockerfileError::at(number, Problem::StageTwice { name }));
                }
                let (base, steps) = (image, Vec::new());
                self.stages.push(Stage { name, base, platform, line: number, steps });
            }
            (instruction, Some(stage)) => stage.steps.push(Step { line: number, text, instruction }),
            (instruction @ Instruction::Arg(_), None) => self.before.push(Step { line: number, text, instruction }),
            (_, None) => {
                return Err(DockerfileError::at(number, Problem::BeforeFrom { keyword: line.keyword.clone() }));
            }
        }
        Ok(())
    }

    /// The number of the stage with this name, or of which this is the number.
    pub fn stage(&self, name: &str) -> Option<usize> {
        let lower = name.to_ascii_lowercase();
        let named = self.stages.iter().position(|stage| stage.name.as_deref() == Some(&lower));
        named.or_else(|| name.parse().ok().filter(|number| *number < self.stages.len()))
    }
}

fn step(line: &Line, escape: char) -> Result<Step, DockerfileError> {
    let instruction = Instruction::read(line, escape).map_err(|problem| DockerfileError::at(line.number, problem))?;
    Ok(Step { line: line.number, text: line.text.clone(), instruction })
}

#[cfg(test)]
mod tests;
