//! Enums whose variants have names.

/// Names each variant of an enum, in the order of `ALL`.
macro_rules! named_variants {
    ($(#[$doc:meta])* $enum:ident { $($(#[$variant_doc:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$doc])*
        pub enum $enum {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $enum {
            /// All of them, in order.
            pub const ALL: &[$enum] = &[$($enum::$variant,)*];

            /// Its name in programs and in the configuration.
            pub fn name(self) -> &'static str {
                match self {
                    $($enum::$variant => $name,)*
                }
            }
        }
    };
}

pub(crate) use named_variants;

/// The name that a value has where it is written down: in a configuration, in JSON.
pub(crate) fn serialized_name(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}
