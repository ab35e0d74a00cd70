//! Which back end runs the shards: the user's choice, what the machine allows, and the words for
//! the start-up line. Making the back ends is left to the shards' own threads.

use super::ring::{self, Refused};
use std::fmt;
use std::str::FromStr;

/// The setting `io`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// io_uring where it is available, else posix.
    #[default]
    Auto,
    /// io_uring or nothing.
    Uring,
    /// epoll and plain system calls.
    Posix,
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Choice::Auto),
            "uring" => Ok(Choice::Uring),
            "posix" => Ok(Choice::Posix),
            _ => Err(format!(
                "no io back end is called {text:?}: choose auto, uring or posix"
            )),
        }
    }
}

/// The back end that will run, and why. Displayed as the words for the start-up line.
#[derive(Debug)]
pub enum Backend {
    /// [`super::ring::Ring`].
    Uring,
    /// [`super::posix::Posix`].
    Posix {
        /// Why io_uring was not used although it was wanted; worth a warning.
        fallback: Option<Refused>,
    },
}

impl Backend {
    /// Asks the machine for a ring of so many entries for each shard, unless the choice needs no
    /// answer. Fails only if io_uring was demanded.
    pub fn choose(choice: Choice, entries: u32, shards: usize) -> Result<Self, Refused> {
        match choice {
            Choice::Auto => Ok(match ring::probe(entries, shards) {
                Ok(()) => Backend::Uring,
                Err(refused) => Backend::Posix {
                    fallback: Some(refused),
                },
            }),
            Choice::Uring => ring::probe(entries, shards).map(|()| Backend::Uring),
            Choice::Posix => Ok(Backend::Posix { fallback: None }),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Backend::Uring => write!(f, "io_uring"),
            Backend::Posix { fallback: None } => write!(f, "posix (as chosen)"),
            Backend::Posix {
                fallback: Some(refused),
            } => {
                write!(f, "posix, because {refused}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_decides_and_the_words_say_why() {
        assert_eq!(
            Backend::choose(Choice::Auto, 8, 2).unwrap().to_string(),
            "io_uring"
        );
        assert_eq!(
            Backend::choose(Choice::Uring, 8, 2).unwrap().to_string(),
            "io_uring"
        );
        assert_eq!(
            Backend::choose(Choice::Posix, 8, 2).unwrap().to_string(),
            "posix (as chosen)"
        );
    }

    #[test]
    fn choices_have_names() {
        for (name, choice) in [
            ("auto", Choice::Auto),
            ("uring", Choice::Uring),
            ("posix", Choice::Posix),
        ] {
            assert_eq!(name.parse(), Ok(choice));
        }
        assert!(
            "epoll"
                .parse::<Choice>()
                .unwrap_err()
                .contains("auto, uring or posix")
        );
    }
}
