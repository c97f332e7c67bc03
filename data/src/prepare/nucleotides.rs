//! DNA and RNA among proteins.
//!
//! Every letter of a nucleic acid is that of an amino acid as well, so nothing in a sequence
//! refuses it. Two things tell: a header that names the kind of molecule, and a composition that no
//! protein has. A record whose header says so is left out. Composition alone leaves nothing out, as
//! there are proteins of few residues; a file with many such records is reported.

use memchr::memmem::find;

/// Shorter sequences say nothing: of 16 residues of a protein, all are A, C, G, T, U or N once in a
/// thousand million times.
pub(crate) const TELLING: usize = 16;
/// From this share of its sequences on, a file is reported.
pub(crate) const REPORTED: f64 = 0.01;

/// Whether a FASTA header says that its sequence is a nucleic acid.
pub(crate) fn named_by(header: &[u8], sequence: &[u8]) -> bool {
    // The PDB names the kind of each chain. Its `mol:na` have other letters, too.
    if find(header, b"mol:na").is_some() {
        return header
            .split(u8::is_ascii_whitespace)
            .any(|word| word == b"mol:na");
    }
    // The others are words that a protein's description may have as well, so the letters must
    // agree.
    is_named_in_passing(header) && are_all(sequence)
}

/// The words of Ensembl (`ENST00000631435.1 cdna chromosome:GRCh38:7:...`) and of NCBI
/// (`NM_000518.5 Homo sapiens hemoglobin subunit beta (HBB), mRNA`).
fn is_named_in_passing(header: &[u8]) -> bool {
    let header = header.trim_ascii_end();
    let molecules: [&[u8]; 4] = [b", mRNA", b" RNA", b" DNA", b", complete genome"];
    if molecules.iter().any(|end| header.ends_with(end)) {
        return true;
    }
    let mut words = header.split(u8::is_ascii_whitespace);
    let second = words.nth(1).unwrap_or_default();
    matches!(second, b"cdna" | b"cds" | b"ncrna")
        || [&b"dna:"[..], b"dna_sm:", b"dna_rm:"]
            .iter()
            .any(|kind| second.starts_with(kind))
}

/// Whether all letters are those of nucleotides. Gaps and white space do not count.
fn are_all(sequence: &[u8]) -> bool {
    let mut letters = sequence
        .iter()
        .filter(|byte| !matches!(byte, b'-' | b'.' | b'*'));
    letters.all(|&letter| is_nucleotide(letter))
}

/// Whether a letter stands for a nucleotide, of DNA or RNA, known or not.
pub(crate) fn is_nucleotide(letter: u8) -> bool {
    matches!(
        letter.to_ascii_uppercase(),
        b'A' | b'C' | b'G' | b'T' | b'U' | b'N'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_name_nucleic_acids() {
        for header in [
            "1d23_A mol:na length:10  DNA (5'-D(*CP*GP*AP*TP*CP*GP*AP*TP*CP*G)-3')",
            "NM_000518.5 Homo sapiens hemoglobin subunit beta (HBB), mRNA",
            "ENST00000631435.1 cdna chromosome:GRCh38:CHR_HSCHR7_2_CTG6:142847306:142847317:1",
            "21 dna:chromosome chromosome:GRCh38:21:1:46709983:1 REF",
            "NC_001422.1 Escherichia phage phiX174, complete genome\r",
        ] {
            assert!(named_by(header.as_bytes(), b"acgtNNGATTACA"), "{header}");
        }
        // The type of a chain is believed whatever its letters are.
        assert!(named_by(
            b"4tna_A mol:na length:76",
            b"GCGGAUUUAGCUCAGXXGGGAGAGC"
        ));
    }

    #[test]
    fn headers_of_proteins_do_not() {
        for header in [
            "101m_A mol:protein length:154  MYOGLOBIN",
            "sp|Q9NPI6|DCP1A_HUMAN mRNA-decapping enzyme 1A OS=Homo sapiens",
            "WP_000000001.1 MULTISPECIES: binds mol:nat RNA",
            "",
        ] {
            assert!(
                !named_by(header.as_bytes(), b"MEALSRAGQEMSLAALKQHDPYITSIADLTG"),
                "{header}"
            );
        }
        assert!(!named_by(b"P1 a protein like any other", b"GATTACA"));
    }
}
