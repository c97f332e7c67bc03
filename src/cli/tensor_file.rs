//! Safetensors files that are not models: a batch in, results out.

use std::path::Path;

use ankh_pjrt::{ElementType, HostTensor};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::{CliError, Exit};

/// The int32 arrays of a file.
pub(super) fn read(path: &Path) -> Result<Vec<(String, HostTensor)>, CliError> {
    let wrong =
        |problem: String| CliError::new(Exit::Usage, format!("{}: {problem}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let file = SafeTensors::deserialize(&bytes);
    let file = file.map_err(|error| wrong(format!("not a safetensors file: {error}")))?;
    let tensor = |(name, view): (String, TensorView<'_>)| match view.dtype() {
        Dtype::I32 => {
            let tensor = HostTensor {
                element_type: ElementType::S32,
                dims: view.shape().iter().map(|&size| size as i64).collect(),
                bytes: view.data().to_vec(),
            };
            Ok((name, tensor))
        }
        other => Err(wrong(format!("`{name}` is {other:?}, expected I32"))),
    };
    file.tensors().into_iter().map(tensor).collect()
}

/// Writes float32 arrays, all or nothing.
pub(super) fn write(path: &Path, tensors: &[(String, HostTensor)]) -> Result<(), CliError> {
    let failed =
        |problem: String| CliError::failed(format!("cannot write {}: {problem}", path.display()));
    let views = tensors.iter().map(|(name, tensor)| {
        let shape = tensor.dims.iter().map(|&size| size as usize).collect();
        TensorView::new(Dtype::F32, shape, &tensor.bytes).map(|view| (name.as_str(), view))
    });
    let views: Vec<(&str, TensorView<'_>)> = views
        .collect::<Result<_, _>>()
        .map_err(|error| failed(error.to_string()))?;
    let bytes = safetensors::serialize(views, None).map_err(|error| failed(error.to_string()))?;
    ankh_storage::atomic::replace_file(path, &bytes).map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_safetensors_reads() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.safetensors");
        let tensors = [
            ("loss".to_owned(), HostTensor::new::<f32>([], &[1.5])),
            (
                "grad.x".to_owned(),
                HostTensor::new::<f32>([2, 1], &[2.5, 3.5]),
            ),
        ];
        write(&path, &tensors).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        for (name, tensor) in &tensors {
            assert_eq!(file.tensor(name).unwrap().data(), tensor.bytes);
        }
        assert!(read(&path).unwrap_err().message().contains("expected I32"));
    }

    #[test]
    fn a_file_of_another_kind_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("batch.safetensors");
        std::fs::write(&path, b"no").unwrap();
        let error = read(&path).unwrap_err();
        assert!(
            error
                .message()
                .contains("batch.safetensors: not a safetensors file")
        );
        assert_eq!(error.exit(), Exit::Usage);
    }
}
