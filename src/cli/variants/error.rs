//! What to do about errors of variants.

use crate::cli::CliError;
use crate::variants::Error;

impl From<Error> for CliError {
    fn from(error: Error) -> Self {
        let help = match error {
            Error::Data(error) => return error.into(),
            Error::Config(error) => return error.into(),
            Error::Train(error) => return error.into(),
            Error::Run(error) => return error.into(),
            Error::Mesh(error) => return error.into(),
            Error::Weights(error) => return error.into(),
            Error::Model(error) => return error.into(),
            Error::Generate(error) => return error.into(),
            Error::Aligner { .. } => return Self::failed(error),
            Error::File { verb, .. } if verb != "read" => return Self::failed(error),
            Error::NotAnAlignment { .. } | Error::Empty(_) => {
                Some("give sequences as FASTA, A2M or Stockholm")
            }
            Error::Columns { .. } => {
                Some("give an alignment: each sequence has a residue or a gap in each column")
            }
            Error::NoResidue { .. } | Error::NoResidues { .. } => {
                Some("mend or remove that sequence, and run the command once more")
            }
            Error::NoColumns(_) => Some("give an alignment with fewer gaps"),
            Error::NotOne { .. } => Some("give --sequence a file with one sequence alone"),
            Error::NoWildType { .. } => Some("give --wild-type the first word of a header"),
            Error::Prompt { .. } => {
                Some("give fewer residues with --prompt, or another --wild-type")
            }
            Error::Mask { .. } => Some("give other shares with --settings"),
            Error::Occupied { .. } => Some(
                "give another --output; --restart discards what another of these commands left",
            ),
            Error::NoAligner(_) => Some(
                "install HMMER (Debian and Ubuntu: `apt install hmmer`), or leave --aligner out",
            ),
            Error::File { .. } => None,
        };
        let error = Self::usage(error);
        match help {
            Some(help) => error.help(help),
            None => error,
        }
    }
}
