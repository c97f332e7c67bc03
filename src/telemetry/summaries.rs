//! The values of TensorBoard's summaries: scalars, histograms, texts and hyperparameters, each with
//! what the dashboard that shows it expects.

use std::collections::BTreeMap;

use ankh_proto::tensorboard::summary::{Value, value};
use ankh_proto::tensorboard::summary_metadata::PluginData;
use ankh_proto::tensorboard::tensor_shape_proto::Dim;
use ankh_proto::tensorboard::{
    DataClass, DataType, HParamValue, HParamsPluginData, SessionStartInfo, SummaryMetadata,
    TensorProto, TensorShapeProto, h_param_value, h_params_plugin_data,
};
use prost::Message;

use crate::programs::Histogram;

/// A number.
pub(super) fn scalar(tag: String, number: f64) -> Value {
    Value {
        tag,
        value: Some(value::Value::SimpleValue(number as f32)),
        ..Value::default()
    }
}

/// Buckets: a tensor of their lower bounds, upper bounds and counts.
pub(super) fn histogram(histogram: &Histogram) -> Value {
    let buckets = &histogram.buckets;
    tensor(
        &histogram.name,
        "histograms",
        match histogram.name.starts_with("gradients") {
            true => {
                "Powers of ten of the absolute values, before clipping; the lowest bucket has the zeros."
            }
            false => "How often each token id is predicted, or expected, where there is a target.",
        },
        TensorProto {
            dtype: DataType::DtDouble.into(),
            tensor_shape: Some(shape(&[buckets.len(), 3])),
            double_val: buckets.iter().flatten().copied().collect(),
            ..TensorProto::default()
        },
    )
}

/// A text in Markdown.
pub(super) fn text(tag: &str, text: String) -> Value {
    tensor(
        tag,
        "text",
        "",
        TensorProto {
            dtype: DataType::DtString.into(),
            tensor_shape: Some(shape(&[])),
            string_val: vec![text.into_bytes()],
            ..TensorProto::default()
        },
    )
}

/// What the dashboard that compares runs by their settings lists. It reads the metadata alone.
pub(super) fn hyperparameters(settings: &serde_json::Value, group: &str, began: f64) -> Value {
    let mut hparams = BTreeMap::new();
    flatten("", settings, &mut hparams);
    let data = HParamsPluginData {
        version: 0,
        data: Some(h_params_plugin_data::Data::SessionStartInfo(
            SessionStartInfo {
                hparams,
                group_name: group.into(),
                start_time_secs: began,
            },
        )),
    };
    Value {
        tag: "_hparams_/session_start_info".into(),
        metadata: Some(metadata("hparams", "", data.encode_to_vec())),
        value: Some(value::Value::Tensor(TensorProto {
            dtype: DataType::DtFloat.into(),
            tensor_shape: Some(shape(&[0])),
            ..TensorProto::default()
        })),
    }
}

/// The settings that are numbers, texts or truths, by their dotted keys.
fn flatten(key: &str, setting: &serde_json::Value, found: &mut BTreeMap<String, HParamValue>) {
    use h_param_value::Kind;
    let kind = match setting {
        serde_json::Value::Object(settings) => {
            for (name, setting) in settings {
                let key = match key.is_empty() {
                    true => name.clone(),
                    false => format!("{key}.{name}"),
                };
                flatten(&key, setting, found);
            }
            return;
        }
        serde_json::Value::Number(number) => number.as_f64().map(Kind::NumberValue),
        serde_json::Value::String(text) => Some(Kind::StringValue(text.clone())),
        serde_json::Value::Bool(truth) => Some(Kind::BoolValue(*truth)),
        serde_json::Value::Null | serde_json::Value::Array(_) => None,
    };
    if kind.is_some() {
        found.insert(key.into(), HParamValue { kind });
    }
}

fn tensor(tag: &str, plugin: &str, description: &str, tensor: TensorProto) -> Value {
    Value {
        tag: tag.into(),
        metadata: Some(metadata(plugin, description, Vec::new())),
        value: Some(value::Value::Tensor(tensor)),
    }
}

fn metadata(plugin: &str, description: &str, content: Vec<u8>) -> SummaryMetadata {
    SummaryMetadata {
        plugin_data: Some(PluginData {
            plugin_name: plugin.into(),
            content,
        }),
        summary_description: description.into(),
        data_class: DataClass::Tensor.into(),
        ..SummaryMetadata::default()
    }
}

fn shape(sizes: &[usize]) -> TensorShapeProto {
    let dim = |&size: &usize| Dim {
        size: size as i64,
        ..Dim::default()
    };
    TensorShapeProto {
        dim: sizes.iter().map(dim).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_listed_by_their_dotted_keys() {
        let settings = serde_json::json!({
            "train": { "steps": 20, "remat": "full", "none": null },
            "list": [1],
            "deep": { "er": { "still": true } },
        });
        let mut found = BTreeMap::new();
        flatten("", &settings, &mut found);
        let keys: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(keys, ["deep.er.still", "train.remat", "train.steps"]);
        let steps = HParamValue {
            kind: Some(h_param_value::Kind::NumberValue(20.0)),
        };
        assert_eq!(found["train.steps"], steps);
    }
}
