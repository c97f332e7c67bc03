//! What a plugin's client is created with.

use ankh_pjrt::{NamedValue, Platform};

use super::DeviceError;
use super::slice::Slice;

/// The share of a GPU's memory that the client takes when it is created, between 0 and 1.
const MEMORY_FRACTION: &str = "XLA_CLIENT_MEM_FRACTION";

/// Its older name.
const OLDER_MEMORY_FRACTION: &str = "XLA_PYTHON_CLIENT_MEM_FRACTION";

/// Whether the client takes that memory at once.
const PREALLOCATE: &str = "XLA_PYTHON_CLIENT_PREALLOCATE";

/// The options of a client for the devices of a slice.
///
/// A CPU has as many virtual devices as the slice. Of a machine's GPUs the first ones are taken, so
/// that others stay free for other programs; `CUDA_VISIBLE_DEVICES` chooses which are counted. How
/// much of their memory is taken is said by the variables of the environment that JAX has for it.
pub fn client_options(
    slice: Slice,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Vec<NamedValue>, DeviceError> {
    let devices = slice.devices() as i64;
    match slice.platform() {
        Platform::Cpu => Ok(vec![NamedValue::int("cpu_device_count", devices)]),
        Platform::Tpu => Ok(vec![]),
        Platform::Cuda => {
            let visible: Vec<i64> = (0..devices).collect();
            let mut options = vec![NamedValue::int_list("visible_devices", visible)];
            let set = |name| Some((name, variable(name).filter(|value| !value.is_empty())?));
            if let Some((name, value)) = set(MEMORY_FRACTION).or_else(|| set(OLDER_MEMORY_FRACTION))
            {
                options.push(NamedValue::float("memory_fraction", fraction(name, value)?));
            }
            if let Some((name, value)) = set(PREALLOCATE) {
                options.push(NamedValue::bool("preallocate", truth(name, value)?));
            }
            Ok(options)
        }
    }
}

fn fraction(name: &'static str, value: String) -> Result<f32, DeviceError> {
    match value.parse::<f32>() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err(DeviceError::Variable {
            name,
            value,
            expected: "a number above 0 and at most 1, such as 0.75",
        }),
    }
}

fn truth(name: &'static str, value: String) -> Result<bool, DeviceError> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(DeviceError::Variable {
            name,
            value,
            expected: "true or false",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(slice: &str, environment: &[(&str, &str)]) -> Result<Vec<NamedValue>, String> {
        let value = |name: &str| {
            let found = environment.iter().find(|(set, _)| *set == name)?;
            Some(found.1.to_owned())
        };
        client_options(slice.parse().unwrap(), value).map_err(|error| error.to_string())
    }

    #[test]
    fn as_many_devices_as_the_slice_has() {
        assert_eq!(
            options("cpu-8", &[]).unwrap(),
            [NamedValue::int("cpu_device_count", 8)]
        );
        assert_eq!(options("v4-8", &[]).unwrap(), []);
        let two = NamedValue::int_list("visible_devices", [0, 1]);
        assert_eq!(options("cuda-2", &[]).unwrap(), [two]);
    }

    #[test]
    fn a_gpus_memory_is_taken_as_the_environment_says() {
        let visible = NamedValue::int_list("visible_devices", [0]);
        let half = NamedValue::float("memory_fraction", 0.5);
        for name in [MEMORY_FRACTION, OLDER_MEMORY_FRACTION] {
            let found = options("cuda-1", &[(name, "0.5")]).unwrap();
            assert_eq!(found, [visible.clone(), half.clone()]);
        }
        let found = options("cuda-1", &[(PREALLOCATE, "False")]).unwrap();
        assert_eq!(
            found,
            [visible.clone(), NamedValue::bool("preallocate", false)]
        );
        // One that is set to nothing counts as not set, and other platforms have no such option.
        assert_eq!(
            options("cuda-1", &[(MEMORY_FRACTION, "")]).unwrap(),
            [visible]
        );
        assert!(options("v4-8", &[(MEMORY_FRACTION, "much")]).is_ok());
    }

    #[test]
    fn a_value_that_means_nothing_is_refused() {
        for value in ["much", "0", "-1", "1.5", "nan"] {
            let error = options("cuda-1", &[(MEMORY_FRACTION, value)]).unwrap_err();
            assert!(
                error.contains(MEMORY_FRACTION) && error.contains(value),
                "{error}"
            );
        }
        let error = options("cuda-1", &[(PREALLOCATE, "no")]).unwrap_err();
        assert!(error.contains("true or false"), "{error}");
    }
}
