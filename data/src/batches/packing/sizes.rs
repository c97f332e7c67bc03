//! What a sequence of each class takes of a row.

use crate::batches::objective::Objective;
use crate::error::{Error, Result, Setting};
use crate::tokenizer::Tokenizer;

/// The tokens of input and target that are kept for a sequence, by its class: the residues it
/// shows.
#[derive(Clone, Debug)]
pub(crate) struct Sizes {
    pub(super) input_length: u32,
    pub(super) target_length: u32,
    /// Of input and target, by class.
    sizes: Vec<(u32, u32)>,
    /// The classes by size, the smallest first; a class's place here is its rank.
    ranks: Vec<u32>,
    /// How many ranks' inputs fit that much room.
    fitting: Vec<u32>,
}

impl Sizes {
    /// The classes `0..=window` under an objective. What an objective may need beyond a row's
    /// length is cut anyway, so no class takes more than a row.
    pub(crate) fn new(
        objective: &Objective,
        tokenizer: Tokenizer,
        window: usize,
        (input_length, target_length): (usize, usize),
    ) -> Result<Sizes> {
        let longest = usize::from(u16::MAX);
        for (setting, length) in [
            (Setting::InputLength, input_length.max(window)),
            (Setting::TargetLength, target_length),
        ] {
            if length > longest {
                let reason = format!("must be at most {longest} for packed rows, but is {length}");
                return Err(Error::setting(setting, reason));
            }
        }
        let size = |class| {
            let input = objective.input_tokens(tokenizer, class).min(input_length);
            let target = objective.target_allotment(tokenizer, class);
            (input as u32, target.min(target_length) as u32)
        };
        let sizes: Vec<(u32, u32)> = (0..=window).map(size).collect();
        let mut ranks: Vec<u32> = (0..=window as u32).collect();
        ranks.sort_by_key(|&class| sizes[class as usize]);
        let fits = |room| ranks.partition_point(|&class| sizes[class as usize].0 as usize <= room);
        let fitting = (0..=input_length).map(|room| fits(room) as u32).collect();
        Ok(Sizes {
            input_length: input_length as u32,
            target_length: target_length as u32,
            sizes,
            ranks,
            fitting,
        })
    }

    /// How many classes there are.
    pub(crate) fn classes(&self) -> usize {
        self.sizes.len()
    }

    /// The tokens of the target that are kept for a sequence that shows so many residues.
    pub(crate) fn target(&self, residues: usize) -> usize {
        self.sizes.get(residues).map_or(0, |size| size.1 as usize)
    }

    pub(super) fn class_of(&self, rank: usize) -> u32 {
        self.ranks[rank]
    }

    /// The tokens of input and target of a rank; at least one of each, for `</s>`.
    pub(super) fn of_rank(&self, rank: usize) -> (u32, u32) {
        self.sizes[self.ranks[rank] as usize]
    }

    /// How many ranks have an input that fits `room` tokens; they are the lowest.
    pub(super) fn fitting(&self, room: u32) -> usize {
        self.fitting[room as usize] as usize
    }
}
