//! A step that does not fit: what is too big, and what to change.

use super::{Draft, Role};
use crate::config::Remat;
use crate::slice::Generation;

const GIB: f64 = (1u64 << 30) as f64;

/// What of a step that does not fit is too big, and what to change, from what its arrays take on each device. `message` is the
/// compiler's.
pub fn too_big(draft: &Draft<'_>, message: &str) -> (String, String) {
    let sum = |role: Role| {
        let arrays = draft.arrays.iter().filter(|a| a.role == role);
        arrays.map(|a| a.bytes).sum::<u64>() as f64
    };
    let (parameters, optimizer, batch) =
        (sum(Role::Parameter), sum(Role::Optimizer), sum(Role::Batch));
    let arguments = parameters + optimizer + batch;
    let told = Told::by(message);
    let used = told.map(|told| match told.temporary {
        true => arguments + told.needed,
        false => told.needed,
    });
    let usable = draft.slice.generation().map(|g| usable(g) as f64);
    let limit = told.map(|told| told.available).or(usable);
    let of = limit.map_or_else(String::new, |limit| format!(" of {}", gib(limit)));
    let needs = used.map_or("more than there is".into(), gib);
    let mut text = format!(
        "the step needs {needs}{of} on each chip: parameters {}, optimizer state {}, batch {}",
        gib(parameters),
        gib(optimizer),
        gib(batch)
    );
    let rest = used.map(|used| (used - arguments).max(0.0));
    if let Some(rest) = rest {
        text += &format!(", activations and gradients {}", gib(rest));
    }
    let state_too_big = match (rest, limit) {
        (Some(rest), _) => arguments > rest,
        (None, Some(limit)) => arguments > limit / 2.0,
        (None, None) => false,
    };
    (text, advice(draft, state_too_big))
}

fn advice(draft: &Draft<'_>, state_too_big: bool) -> String {
    let config = draft.config;
    let mut changes = Vec::new();
    let chips = draft.slice.devices();
    if state_too_big && chips > 1 {
        changes
            .push("split the weights over more chips with sharding.fsdp or sharding.model".into());
        if !config.sharding.zero && draft.mesh.data > 1 {
            changes.push("split the optimizer state with sharding.zero=true".into());
        }
    } else if state_too_big {
        changes.push("choose a larger slice or a smaller model".into());
    }
    if config.train.remat != Remat::Full {
        changes.push("set train.remat=full".into());
    }
    if draft.device_batch_size() > 1 {
        let parts = 2 * config.train.accumulation;
        changes.push(format!("set train.accumulation={parts}"));
        changes.push("lower train.batch_size".into());
    }
    if !state_too_big && chips > 1 {
        changes.push("split the layers with sharding.model".into());
    }
    match changes.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{}, or {last}", others.join(", ")),
        None => "choose a larger slice or a smaller model".into(),
    }
}

/// What libtpu leaves to a program of the memory of a chip: its messages say so where one does not fit.
pub(super) fn usable(generation: Generation) -> u64 {
    let gib = match generation {
        Generation::V4 => 30.75,
        Generation::V5e => 15.75,
        Generation::V5p => 95.73,
        Generation::V6e => 31.24,
    };
    (gib * GIB) as u64
}

/// Bytes that a compiler's message tells of.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Told {
    needed: f64,
    available: f64,
    /// Whether what is needed is for temporary arrays alone.
    temporary: bool,
}

impl Told {
    /// From "Used 45.20G of 31.25G hbm" or "total memory required for HLO temporaries (31.04G) exceeds available HBM (30.75G)".
    fn by(message: &str) -> Option<Told> {
        let words = message.split_whitespace();
        let mut sizes = words.filter_map(|word| size(word.trim_matches(['(', ')', '.', ','])));
        Some(Told {
            needed: sizes.next()?,
            available: sizes.next()?,
            temporary: message.contains("temporaries ("),
        })
    }
}

/// `31.25G` in bytes.
fn size(text: &str) -> Option<f64> {
    let exponent = match text.chars().last()? {
        'K' => 10,
        'M' => 20,
        'G' => 30,
        'T' => 40,
        _ => return None,
    };
    let number: f64 = text[..text.len() - 1].parse().ok()?;
    Some(number * f64::from(exponent).exp2())
}

fn gib(bytes: f64) -> String {
    match bytes / GIB {
        small if small < 0.1 => format!("{:.1} MiB", bytes / (1u64 << 20) as f64),
        large => format!("{large:.1} GiB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolve;

    #[test]
    fn libtpus_figures_are_read() {
        let total = "Ran out of memory in memory space hbm. Used 45.50G of 31.25G hbm. Exceeded hbm capacity by 14.25G.";
        let temporaries = "E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO \
             temporaries (31.50G) exceeds available HBM (30.75G). HLO module: train_step.";
        for (message, needed, available, temporary) in [
            (total, 45.5, 31.25, false),
            (temporaries, 31.5, 30.75, true),
        ] {
            let told = Told::by(message).unwrap();
            assert_eq!(
                (told.needed / GIB, told.available / GIB),
                (needed, available)
            );
            assert_eq!(told.temporary, temporary);
        }
        for message in ["", "G", "it is too large", "Used 1.5G"] {
            assert_eq!(Told::by(message), None, "{message}");
        }
    }

    #[test]
    fn what_is_too_big_is_named_with_what_to_change() {
        let set = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let activations = set("train.batch_size=4096 train.remat=none");
        let config = resolve(Some("ankh-base"), &activations).unwrap();
        let draft = Draft::new(&config, "v4-64".parse().unwrap()).unwrap();
        let (text, advice) = too_big(
            &draft,
            "temporaries (40.00G) exceeds available HBM (30.75G)",
        );
        assert!(
            text.contains("activations and gradients 40.0 GiB"),
            "{text}"
        );
        assert!(text.contains("30.8 GiB"), "{text}");
        for change in ["train.remat=full", "train.accumulation=2"] {
            assert!(advice.contains(change), "{advice}");
        }

        let state = set("train.batch_size=4 optimizer.name=adamw");
        let config = resolve(Some("ankh-large"), &state).unwrap();
        let draft = Draft::new(&config, "v5e-4".parse().unwrap()).unwrap();
        let (text, advice) = too_big(&draft, "Used 26.00G of 15.75G hbm.");
        assert!(
            text.contains("parameters 7.0 GiB, optimizer state 14.0 GiB"),
            "{text}"
        );
        for change in ["sharding.fsdp", "sharding.zero=true"] {
            assert!(advice.contains(change), "{advice}");
        }
    }
}
