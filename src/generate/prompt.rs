//! Prompts: what is written in a file, as an encoder input and what is known of the target.

use ankh_data::batches::objective::{Completion, PartialDemasking, TargetFormat};
use ankh_data::tokenizer::{EOS, PAD, Task as Mark};
use ankh_data::{Objective, Tokenizer, Vocabulary};

use super::{Constraint, Fault};

/// What is done with a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Each sentinel is replaced by residues.
    Fill,
    /// So many residues are added: the prompt is filled with as many sentinels at its end.
    Extend(usize),
    /// The sequence goes on, as far as the model likes: Ankh3's `[S2S]`.
    Complete,
}

/// What may be generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freedom {
    /// A target of the right form: a residue in each place, and the end where it belongs.
    Form,
    /// Anything, as by `transformers`' `generate`.
    Free,
}

/// A prompt that is ready to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Its name.
    pub id: String,
    /// The encoder's tokens, with the task mark and `</s>`.
    pub input: Vec<u8>,
    /// What may follow at each position of the target; beyond them, `rest` does.
    pub target: Vec<Constraint>,
    /// What may follow at later positions.
    pub rest: Constraint,
    /// Positions at most, where it does not end before.
    pub limit: usize,
}

/// The objective that puts targets back into prompts: the one a model was trained with, or the one
/// that is usual for its tokenizer.
pub fn objective_of(
    task: Task,
    trained: Option<&Objective>,
    format: Option<TargetFormat>,
    tokenizer: Tokenizer,
) -> Objective {
    if task == Task::Complete {
        let usual = Completion {
            task: tokenizer.task(Mark::S2s).map(|_| Mark::S2s),
            prompt: None,
        };
        return match trained {
            Some(Objective::Completion(known)) => Objective::Completion(*known),
            _ => Objective::Completion(usual),
        };
    }
    let usual = match tokenizer.vocabulary() {
        Vocabulary::Ankh => PartialDemasking::default(),
        Vocabulary::Ankh3 => PartialDemasking {
            target_format: TargetFormat::Pairs,
            task: Some(Mark::Nlu),
            ..PartialDemasking::default()
        },
    };
    let trained = trained.filter(|trained| !matches!(trained, Objective::Completion(_)));
    let mut objective = match trained {
        Some(trained) => trained.clone(),
        None => Objective::PartialDemasking(usual),
    };
    if let (Some(format), Objective::PartialDemasking(kind)) = (format, &mut objective) {
        kind.target_format = format;
    }
    objective
}

impl Prompt {
    /// Reads a prompt: letters, and sentinels as `<extra_id_0>`. `limit` is how long a target may
    /// get that may be anything; by default as long as is usual for the task.
    pub fn parse(
        id: &str,
        text: &[u8],
        task: Task,
        (objective, freedom): (&Objective, Freedom),
        tokenizer: Tokenizer,
        limit: Option<usize>,
    ) -> Result<Prompt, Fault> {
        let mut tokens = tokens_of(id, text, tokenizer)?;
        let id = id.to_owned();
        let is_place = |token: &u8| *token == PAD;
        let places = tokens.iter().filter(|token| is_place(token)).count();
        if tokens.is_empty() {
            return Err(Fault::Empty { id });
        }
        match task {
            Task::Fill if places == 0 => return Err(Fault::NothingToFill { id }),
            Task::Fill => {}
            Task::Extend(_) | Task::Complete if places > 0 => {
                return Err(Fault::SentinelInBeginning { id });
            }
            Task::Extend(residues) => tokens.resize(tokens.len() + residues, PAD),
            Task::Complete => {
                return Ok(completed(id, tokens, objective, freedom, tokenizer, limit));
            }
        }
        let places: Vec<usize> = (0..tokens.len()).filter(|&i| tokens[i] == PAD).collect();
        // Every objective but a completion hides residues.
        let example = objective
            .apply_at(tokenizer, &tokens, &places)
            .unwrap_or_default();
        if example.unmasked_for_lack_of_sentinels > 0 || example.input.is_empty() {
            return Err(Fault::TooMany {
                id,
                found: places.len(),
                most: example.masked,
            });
        }
        let form = |&token: &u8| match token {
            PAD => Constraint::Residue,
            token => Constraint::Token(token),
        };
        // How long a span is that stands behind a sentinel, only the model knows.
        let is_known = !matches!(objective, Objective::SpanCorruption(_));
        Ok(match freedom == Freedom::Form && is_known {
            true => Prompt {
                id,
                target: example.target.iter().map(form).collect(),
                rest: Constraint::Token(EOS),
                limit: example.target.len(),
                input: example.input,
            },
            false => Prompt {
                id,
                target: vec![],
                rest: Constraint::Free,
                limit: limit.unwrap_or((2 * places.len() + 1).next_multiple_of(LIMITS)),
                input: example.input,
            },
        })
    }
}

/// Usual limits are multiples of this, so that prompts run together.
const LIMITS: usize = 16;

fn completed(
    id: String,
    tokens: Vec<u8>,
    objective: &Objective,
    freedom: Freedom,
    tokenizer: Tokenizer,
    limit: Option<usize>,
) -> Prompt {
    let mark = match objective {
        Objective::Completion(kind) => kind.task.and_then(|task| tokenizer.task(task)),
        _ => None,
    };
    // The second half of a sequence is as long as the first.
    let usual = (tokens.len() + 1).next_multiple_of(LIMITS);
    Prompt {
        id,
        input: mark.into_iter().chain(tokens).chain([EOS]).collect(),
        target: vec![],
        rest: match freedom {
            Freedom::Form => Constraint::ResidueOrEnd,
            Freedom::Free => Constraint::Free,
        },
        limit: limit.unwrap_or(usual),
    }
}

/// The tokens of a prompt, with [`PAD`] in the places to be filled.
fn tokens_of(id: &str, text: &[u8], tokenizer: Tokenizer) -> Result<Vec<u8>, Fault> {
    let mut tokens = Vec::with_capacity(text.len());
    let mut sentinels = 0;
    let mut rest = text;
    while let [first, after @ ..] = rest {
        if *first != b'<' {
            let token = tokenizer
                .residue_id(*first)
                .ok_or_else(|| Fault::NoResidue {
                    id: id.to_owned(),
                    found: first_char(rest),
                    position: tokens.len() + 1,
                })?;
            tokens.push(token);
            rest = after;
            continue;
        }
        let end = rest.iter().position(|&byte| byte == b'>');
        let mark = &rest[..end.map_or(rest.len(), |end| end + 1)];
        let shown = String::from_utf8_lossy(mark);
        let number = shown
            .strip_prefix("<extra_id_")
            .and_then(|text| text.strip_suffix('>'));
        let Some(found) = number.and_then(|number| number.parse::<usize>().ok()) else {
            return Err(Fault::NoSentinel {
                id: id.to_owned(),
                found: shown.chars().take(20).collect(),
            });
        };
        if found != sentinels {
            return Err(Fault::SentinelOrder {
                id: id.to_owned(),
                found,
                expected: sentinels,
            });
        }
        sentinels += 1;
        tokens.push(PAD);
        rest = &rest[mark.len()..];
    }
    Ok(tokens)
}

fn first_char(text: &[u8]) -> char {
    let text = String::from_utf8_lossy(&text[..text.len().min(4)]);
    text.chars().next().unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, task: Task, freedom: Freedom) -> Result<Prompt, Fault> {
        let tokenizer = Tokenizer::ankh();
        let objective = objective_of(task, None, None, tokenizer);
        Prompt::parse(
            "p",
            text.as_bytes(),
            task,
            (&objective, freedom),
            tokenizer,
            None,
        )
    }

    fn shown(constraints: &[Constraint]) -> String {
        let tokenizer = Tokenizer::ankh();
        let one = |constraint: &Constraint| match constraint {
            Constraint::Residue => "?".to_owned(),
            Constraint::Token(id) => tokenizer.decode(&[*id]),
            other => format!("{other:?}"),
        };
        constraints.iter().map(one).collect()
    }

    #[test]
    fn a_template_has_the_form_of_a_target() {
        let prompt = parse("AB<extra_id_0>DEF<extra_id_1>", Task::Fill, Freedom::Form).unwrap();
        let tokenizer = Tokenizer::ankh();
        let input = tokenizer.decode(&prompt.input);
        assert_eq!(input, "AB<extra_id_0>DEF<extra_id_1></s>");
        assert_eq!(shown(&prompt.target), "<extra_id_0>?<extra_id_1>?</s>");
        assert_eq!(prompt.limit, 5);

        let prompt = parse("<extra_id_0><extra_id_1>AC", Task::Fill, Freedom::Form).unwrap();
        assert_eq!(shown(&prompt.target), "??<extra_id_0></s>");

        let prompt = parse("MK", Task::Extend(2), Freedom::Form).unwrap();
        assert_eq!(
            tokenizer.decode(&prompt.input),
            "MK<extra_id_0><extra_id_1></s>"
        );
        assert_eq!(shown(&prompt.target), "<extra_id_0>??</s>");

        let prompt = parse("MK<extra_id_0>", Task::Fill, Freedom::Free).unwrap();
        assert_eq!((prompt.target.len(), prompt.limit), (0, 16));
    }

    #[test]
    fn what_is_put_back_is_the_prompt_with_residues() {
        let tokenizer = Tokenizer::ankh();
        for format in [TargetFormat::Runs, TargetFormat::Pairs] {
            let objective = objective_of(Task::Fill, None, Some(format), tokenizer);
            let text = b"<extra_id_0>AC<extra_id_1><extra_id_2>DE";
            let form = (&objective, Freedom::Form);
            let prompt = Prompt::parse("p", text, Task::Fill, form, tokenizer, None).unwrap();
            let mut residues = b"WYH".iter();
            let target = prompt.target.iter().map(|constraint| match constraint {
                Constraint::Token(id) => *id,
                _ => tokenizer.residue_id(*residues.next().unwrap()).unwrap(),
            });
            let target: Vec<u8> = target.collect();
            let sequence = objective.unmask(tokenizer, &prompt.input, &target).unwrap();
            assert_eq!(tokenizer.decode(&sequence), "WACYHDE");
        }
    }

    #[test]
    fn bad_prompts_are_told_apart() {
        let fill = |text| {
            parse(text, Task::Fill, Freedom::Form)
                .unwrap_err()
                .to_string()
        };
        assert!(fill("MK").contains("nothing to fill"));
        assert!(fill("M1<extra_id_0>").contains("`1` at position 2"));
        assert!(fill("M<mask>K").contains("`<mask>`, which is no sentinel"));
        assert!(fill("M<extra_id_0").contains("no sentinel"));
        assert!(fill("M<extra_id_1>").contains("<extra_id_1> where <extra_id_0>"));
        let extend = parse("MK", Task::Extend(200), Freedom::Form).unwrap_err();
        assert!(extend.to_string().contains("200 places"), "{extend}");
        let complete = parse("M<extra_id_0>", Task::Complete, Freedom::Form).unwrap_err();
        assert!(matches!(complete, Fault::SentinelInBeginning { .. }));
        let empty = parse("", Task::Complete, Freedom::Form).unwrap_err();
        assert!(matches!(empty, Fault::Empty { .. }));
    }
}
