//! `recgate hash-password`: a password never stands on a command line, where every user of the machine sees it.

use std::io::{self, BufRead, IsTerminal, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::{Failure, Output};
use crate::identity;

/// Turn a password into a hash. It is typed at the terminal, or read from standard input up to the first line's end.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

/// More than any password has; what is longer is refused when it is hashed.
const LONGEST_INPUT: u64 = 4096;

pub(super) fn run(_arguments: &Arguments, output: &mut Output<'_>) -> Result<(), Failure> {
    let password = if io::stdin().is_terminal() {
        let password = ask("Password: ")?;
        if ask("Again: ")? != password {
            return Err(Failure::failed("the two passwords differ; try again"));
        }
        password
    } else {
        first_line(io::stdin().lock())?
    };
    output.line(identity::hash_password(&password).map_err(Failure::failed)?)
}

/// Reads a line that the terminal doesn't show.
fn ask(prompt: &str) -> Result<String, Failure> {
    // To standard error, because standard output gets the hash.
    let mut terminal = io::stderr();
    let _ = write!(terminal, "{prompt}").and_then(|()| terminal.flush());
    let line = {
        let _silence = Silence::begin().map_err(Failure::failed)?;
        first_line(io::stdin().lock())
    };
    let _ = writeln!(terminal);
    line
}

fn first_line(input: impl BufRead) -> Result<String, Failure> {
    let mut line = String::new();
    let read = input.take(LONGEST_INPUT).read_line(&mut line);
    read.map_err(|error| Failure::failed(format!("the password can't be read: {error}")))?;
    let password = line.strip_suffix('\n').unwrap_or(&line);
    Ok(password.strip_suffix('\r').unwrap_or(password).to_owned())
}

/// A terminal that doesn't show what is typed, until this is dropped.
struct Silence {
    before: Termios,
}

impl Silence {
    fn begin() -> rustix::io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self { before })
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn only_the_first_line_counts() {
        for (input, password) in
            [("secret", "secret"), ("secret\r\nmore", "secret"), (" a b \n", " a b "), ("", "")]
        {
            assert_eq!(first_line(input.as_bytes()).unwrap(), password);
        }
        assert!(first_line(&[0xff, b'\n'][..]).unwrap_err().message.contains("can't be read"));
    }
}
