//! Letters of secondary structure.

use super::error::Fault;

/// NetSurfP-2.0's and TAPE's order of eight states, which numbers in JSON count through. `C` is
/// whatever is none of the others.
pub(super) const EIGHT: &[u8] = b"GHIBESTC";
/// The order of three states.
pub(super) const THREE: &[u8] = b"HEC";

/// From DSSP's eight states to three: helices (H, G, I) to `H`, strands (E, B) to `E`, the rest (S,
/// T, P, and what DSSP leaves blank) to `C`. What has three states already stays as it is.
pub(super) fn reduce(id: &str, states: &mut [Option<char>]) -> Result<(), Fault> {
    for (index, state) in states.iter_mut().enumerate() {
        let Some(letter) = *state else { continue };
        *state = Some(match letter {
            'H' | 'G' | 'I' => 'H',
            'E' | 'B' => 'E',
            'C' | 'S' | 'T' | 'P' | 'L' | '-' | ' ' => 'C',
            _ => {
                return Err(Fault::NotAState {
                    id: id.into(),
                    found: letter.into(),
                    position: index + 1,
                    expected: "a state of DSSP (H, G, I, E, B, S, T, P or C)",
                });
            }
        });
    }
    Ok(())
}
