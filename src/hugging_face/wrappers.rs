//! Names of weights with the prefixes that wrappers add.
//!
//! A model that was saved from inside another module has that module's name before each of its own:
//! `module.` of data parallelism, `model.` of a training framework, `_orig_mod.` of a compiled
//! module. Some wrap single layers, so their names are in the middle. No name of T5 looks like
//! these, so a name without them is the model's.

use std::collections::BTreeSet;

/// What wrappers of PyTorch call the module in them; these may stand anywhere in a name.
const WRAPPERS: [&str; 4] = [
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
];

/// A name that each T5 has once. What stands before it stands before all.
const ANCHOR: &str = "encoder.final_layer_norm.weight";

/// The model's names for `names`, in their order, if they are in a wrapper that all of them share.
pub(super) fn unwrapped<'n>(names: impl Iterator<Item = &'n str>) -> Option<Vec<String>> {
    let names: Vec<&str> = names.collect();
    let mut bare: Vec<String> = names.iter().map(|name| without_wrappers(name)).collect();
    let prefix = bare.iter().find_map(|name| before(name, ANCHOR));
    if let Some(prefix) = prefix.map(str::to_owned)
        && bare.iter().all(|name| name.starts_with(&prefix))
    {
        bare = bare
            .iter()
            .map(|name| name[prefix.len()..].to_owned())
            .collect();
    }
    let distinct = bare.iter().collect::<BTreeSet<_>>().len() == names.len();
    (distinct && bare != names).then_some(bare)
}

/// What stands before `name` in `wrapped`, with its dot; nothing before a name that is bare.
pub(super) fn before<'w>(wrapped: &'w str, name: &str) -> Option<&'w str> {
    let prefix = wrapped.strip_suffix(name)?;
    (prefix.is_empty() || prefix.ends_with('.')).then_some(prefix)
}

fn without_wrappers(name: &str) -> String {
    let parts: Vec<&str> = name
        .split('.')
        .filter(|part| !WRAPPERS.contains(part))
        .collect();
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARE: [&str; 3] = [
        "encoder.final_layer_norm.weight",
        "lm_head.weight",
        "shared.weight",
    ];

    #[test]
    fn a_shared_wrapper_comes_off() {
        for prefix in ["module.", "model.", "_orig_mod.module.", "a.b.c.", "t5."] {
            let wrapped = BARE.map(|name| format!("{prefix}{name}"));
            let found = unwrapped(wrapped.iter().map(String::as_str));
            assert_eq!(found.unwrap(), BARE, "{prefix}");
        }
        let inside = [
            "_fsdp_wrapped_module.encoder._fsdp_wrapped_module.final_layer_norm.weight",
            "_fsdp_wrapped_module.lm_head._orig_mod.weight",
            "_fsdp_wrapped_module.shared.weight",
        ];
        assert_eq!(unwrapped(inside.into_iter()).unwrap(), BARE);
    }

    #[test]
    fn names_that_share_no_wrapper_stay() {
        for names in [
            &BARE[..],
            &["model.encoder.final_layer_norm.weight", "shared.weight"],
            &["module.shared.weight", "shared.weight"],
            &["remodel_encoder.final_layer_norm.weight"],
            &[],
        ] {
            assert_eq!(unwrapped(names.iter().copied()), None, "{names:?}");
        }
    }
}
