//! The types of array elements, under their names and numbers in the C API and in XLA.

use std::fmt;

use ankh_proto::xla::PrimitiveType;

/// Declares the element types with their width, PJRT number, XLA number and XLA name.
macro_rules! element_types {
    ($($name:ident: $width:literal bytes, $raw:literal, $primitive:ident, $text:literal;)*) => {
        /// The type of a tensor's elements.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs)]
        pub enum ElementType {
            $($name,)*
        }

        impl ElementType {
            /// Every element type.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The bytes of one element.
            pub fn byte_width(self) -> usize {
                match self {
                    $(Self::$name => $width,)*
                }
            }

            /// The type's number in XLA's protos.
            pub fn primitive_type(self) -> PrimitiveType {
                match self {
                    $(Self::$name => PrimitiveType::$primitive,)*
                }
            }

            /// The type's name in HLO text, such as `bf16`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// The type of this number in XLA's protos, if it is one of these.
            pub fn from_primitive_type(primitive: PrimitiveType) -> Option<Self> {
                match primitive {
                    $(PrimitiveType::$primitive => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The type's number in the C API.
            pub(crate) fn to_raw(self) -> i32 {
                match self {
                    $(Self::$name => $raw,)*
                }
            }

            /// The type of this number in the C API, if it is one of these.
            pub(crate) fn from_raw(raw: i32) -> Option<Self> {
                match raw {
                    $($raw => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

element_types! {
    Pred: 1 bytes, 1, Pred, "pred";
    S8: 1 bytes, 2, S8, "s8";
    S16: 2 bytes, 3, S16, "s16";
    S32: 4 bytes, 4, S32, "s32";
    S64: 8 bytes, 5, S64, "s64";
    U8: 1 bytes, 6, U8, "u8";
    U16: 2 bytes, 7, U16, "u16";
    U32: 4 bytes, 8, U32, "u32";
    U64: 8 bytes, 9, U64, "u64";
    F16: 2 bytes, 10, F16, "f16";
    F32: 4 bytes, 11, F32, "f32";
    F64: 8 bytes, 12, F64, "f64";
    Bf16: 2 bytes, 13, Bf16, "bf16";
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn element_types_agree_with_their_numbers() {
        for &element_type in ElementType::ALL {
            assert_eq!(
                ElementType::from_raw(element_type.to_raw()),
                Some(element_type)
            );
            let primitive = element_type.primitive_type();
            assert_eq!(
                ElementType::from_primitive_type(primitive),
                Some(element_type)
            );
            assert_eq!(primitive.as_str_name().to_lowercase(), element_type.name());
        }
    }
}
