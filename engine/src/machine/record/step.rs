//! What the inputs of all machines have in common: how they are written down.

use alloc::vec::Vec;
use core::fmt;

/// Bytes that are as they were, and then those of which only length and hash are known.
pub(super) type Text = (Vec<u8>, u32, u64);

/// A reply, or the head of one with parts, which follow.
pub(crate) type Node = (u8, i64, Text);

/// A permit, by what makes it up.
pub(crate) type PermitParts = (u32, u32, bool);

/// One call of a machine that may change it.
pub(crate) trait Step: Sized + fmt::Display {
    fn encode(&self, out: &mut Vec<u8>);
    /// Takes one off the front.
    fn decode(bytes: &mut &[u8]) -> Option<Self>;
}

/// An enum of inputs. Each is written as postcard would: its number, and its fields.
macro_rules! inputs {
    ($(#[$doc:meta])* $inputs:ident: $($number:literal $name:ident { $($field:ident: $type:ty),* })*) => {
        $(#[$doc])*
        #[derive(Debug, PartialEq)]
        pub(crate) enum $inputs {
            $($name { $($field: $type),* },)*
        }

        impl $crate::machine::record::step::Step for $inputs {
            fn encode(&self, out: &mut ::alloc::vec::Vec<u8>) {
                match self {
                    $(Self::$name { $($field),* } => {
                        out.push($number);
                        $($crate::archive::put(out, $field);)*
                    })*
                }
            }

            fn decode(bytes: &mut &[u8]) -> Option<Self> {
                let number: u8 = $crate::archive::take(bytes)?;
                Some(match number {
                    $($number => Self::$name { $($field: $crate::archive::take(bytes)?),* },)*
                    _ => return None,
                })
            }
        }

        impl $inputs {
            fn name(&self) -> &'static str {
                match self {
                    $(Self::$name { .. } => stringify!($name),)*
                }
            }
        }
    };
}

pub(super) use inputs;
