//! What has to be true before anything is created. Each check asks gcloud one question, and says
//! what is wrong in one line.

use serde_json::Value;

use super::Cloud;
use crate::{Answer, Call, Error, Pricing, Region, Wanted};

/// Runs all checks, the cheap and general ones first.
pub(super) fn check(cloud: &Cloud<'_>, wanted: &Wanted) -> Result<(), Error> {
    signed_in(cloud)?;
    project(cloud)?;
    zone(cloud)?;
    accelerator(cloud)?;
    quota(cloud)?;
    let mut seen = Vec::new();
    for url in [&cloud.place.directory].into_iter().chain(&wanted.data) {
        let bucket = bucket_of(url);
        if !seen.contains(&bucket) {
            in_region(cloud, &bucket, wanted)?;
            seen.push(bucket);
        }
    }
    wanted.data.iter().try_for_each(|url| prepared(cloud, url))
}

fn failed(what: &'static str, found: impl Into<String>, help: impl Into<String>) -> Error {
    Error::Check {
        what,
        found: found.into(),
        help: help.into(),
    }
}

fn signed_in(cloud: &Cloud<'_>) -> Result<(), Error> {
    let list = [
        "auth",
        "list",
        "--filter=status:ACTIVE",
        "--format=value(account)",
    ];
    let call = Call::new("gcloud", list).assuming(Answer::done("you@example.com\n"));
    match cloud.shell.expect(&call)?.trim() {
        "" => Err(failed("gcloud", "nobody is signed in", "gcloud auth login")),
        _ => Ok(()),
    }
}

fn project(cloud: &Cloud<'_>) -> Result<(), Error> {
    let project = &cloud.place.project;
    let describe = ["projects", "describe", project, "--format=value(projectId)"];
    let call = Call::new("gcloud", describe).assuming(Answer::done(project.clone()));
    let answer = cloud.shell.run(&call)?;
    match answer.ok() {
        true => Ok(()),
        false => Err(failed(
            "project",
            format!("{project} cannot be used: {}", answer.said()),
            "`gcloud projects list` shows yours",
        )),
    }
}

fn zone(cloud: &Cloud<'_>) -> Result<(), Error> {
    let zone = &cloud.place.zone;
    let list = ["compute", "tpus", "locations", "list"];
    let call = cloud.place.call(list, ["--format=value(locationId)"]);
    let call = call.assuming(Answer::done(zone.clone()));
    let answer = cloud.shell.run(&call)?;
    if !answer.ok() {
        let help = format!(
            "`gcloud services enable tpu.googleapis.com --project={}` turns the service on",
            cloud.place.project
        );
        let found = format!("the zones with TPUs are not known: {}", answer.said());
        return Err(failed("Cloud TPU", found, help));
    }
    let zones: Vec<&str> = answer.out.split_whitespace().collect();
    if zones.contains(&zone.as_str()) {
        return Ok(());
    }
    let region = region_of(zone);
    let near: Vec<&str> = zones
        .iter()
        .copied()
        .filter(|z| z.starts_with(region))
        .collect();
    let near = if near.is_empty() { zones } else { near };
    Err(failed(
        "zone",
        format!("there are no TPUs in {zone}"),
        format!("there are in {}", near.join(", ")),
    ))
}

fn accelerator(cloud: &Cloud<'_>) -> Result<(), Error> {
    let wanted = cloud.job.slice.accelerator_type()?;
    let mut call = cloud
        .place
        .zonal(["compute", "tpus", "tpu-vm", "accelerator-types", "list"]);
    call.args.push("--format=value(type)".into());
    let call = call.assuming(Answer::done(wanted.clone()));
    let listed = cloud.shell.expect(&call)?;
    let types: Vec<&str> = listed.split_whitespace().collect();
    if types.contains(&wanted.as_str()) {
        return Ok(());
    }
    let kind = wanted.split('-').next().unwrap_or_default();
    let same = |known: &&str| known.split('-').next() == Some(kind);
    let same: Vec<&str> = types.into_iter().filter(same).collect();
    let zone = &cloud.place.zone;
    let help = match same.is_empty() {
        true => {
            format!("choose a zone with {kind}: https://cloud.google.com/tpu/docs/regions-zones")
        }
        false => format!("{zone} has {}", same.join(", ")),
    };
    Err(failed(
        "accelerator",
        format!("{zone} has no {wanted}"),
        help,
    ))
}

/// Quotas count cores or chips, it is not said which. Less than the chips is too little in any
/// case.
fn quota(cloud: &Cloud<'_>) -> Result<(), Error> {
    let list = [
        "beta",
        "quotas",
        "info",
        "list",
        "--service=tpu.googleapis.com",
    ];
    let call = cloud.place.call(list, ["--quiet", "--format=json"]);
    let answer = cloud.shell.run(&call.assuming(Answer::done("[]")))?;
    let quotas: Vec<Value> = serde_json::from_str(&answer.out).unwrap_or_default();
    let zone = cloud.place.zone.as_str();
    let found = largest(
        &quotas,
        cloud.job.slice.tpus()?.quota,
        cloud.place.pricing,
        zone,
    );
    let chips = cloud.job.slice.chips as i64;
    match found {
        Some((id, limit)) if limit < chips => Err(failed(
            "quota",
            format!(
                "{id} is {limit} in {zone}, and {} has {chips} chips",
                cloud.job.slice.name
            ),
            "ask for more at https://console.cloud.google.com/iam-admin/quotas, or choose another slice, zone or --spot, --on-demand, --reserved",
        )),
        Some(_) => Ok(()),
        None => {
            if !cloud.shell.is_dry() {
                cloud
                    .shell
                    .say("gcloud does not say what the quota is; a queued resource will");
            }
            Ok(())
        }
    }
}

/// The largest quota for the chips of a kind in a zone, with its id.
fn largest(quotas: &[Value], kind: &str, pricing: Pricing, zone: &str) -> Option<(String, i64)> {
    let is_right = |id: &str| {
        let is = |word: &str| id.contains(word);
        let right = match pricing {
            Pricing::Spot => is("Preemptible"),
            Pricing::OnDemand => !is("Preemptible") && !is("Reserved"),
            Pricing::Reserved => is("Reserved"),
        };
        // `TPUV5P` is not a `TPUV5PreemptibleX`.
        let rest = id.strip_prefix(kind).unwrap_or_default();
        right && id.starts_with(kind) && !is("Serving") && !rest.starts_with("reemptible")
    };
    let mut best: Option<(String, i64)> = None;
    for quota in quotas {
        let id = quota["quotaId"].as_str().unwrap_or_default();
        if !is_right(id) {
            continue;
        }
        for info in quota["dimensionsInfos"].as_array().into_iter().flatten() {
            let of_zone = info["dimensions"]["zone"].as_str() == Some(zone);
            let applies = |place: &Value| place.as_str() == Some(zone);
            let listed = info["applicableLocations"].as_array();
            if !of_zone && !listed.is_some_and(|places| places.iter().any(applies)) {
                continue;
            }
            let value = &info["details"]["value"];
            let value = value.as_i64().or_else(|| value.as_str()?.parse().ok());
            if let Some(value) = value
                && best.as_ref().is_none_or(|(_, largest)| value > *largest)
            {
                best = Some((id.to_owned(), value));
            }
        }
    }
    // -1 stands for no limit.
    best.filter(|(_, value)| *value >= 0)
}

fn in_region(cloud: &Cloud<'_>, bucket: &str, wanted: &Wanted) -> Result<(), Error> {
    let zone = &cloud.place.zone;
    let describe = ["storage", "buckets", "describe"];
    let call = cloud
        .place
        .call(describe, [bucket, "--format=json(location,location_type)"]);
    let region = region_of(zone);
    let assumed = format!(r#"{{"location":"{}"}}"#, region.to_uppercase());
    let call = call.assuming(Answer::done(assumed));
    let answer = cloud.shell.run(&call)?;
    if !answer.ok() {
        let help =
            format!("`gcloud storage buckets create {bucket} --location={region}` makes one");
        let found = format!("{bucket} cannot be used: {}", answer.said());
        return Err(failed("bucket", found, help));
    }
    let found: Value = serde_json::from_str(&answer.out).map_err(|_| call.unreadable(&answer))?;
    let location = found["location"]
        .as_str()
        .unwrap_or_default()
        .to_lowercase();
    if wanted.region == Region::Any || location.is_empty() || covers(&location, region) {
        return Ok(());
    }
    Err(failed(
        "region",
        format!(
            "{bucket} is in {location}, and {zone} in {region}: each byte would be paid for, and be slow"
        ),
        format!("use a bucket in {region}, or --any-region"),
    ))
}

/// Whether a bucket's location contains a region: it is the region itself, a continent, or one of
/// the pairs of regions, which do not say of which they are.
fn covers(location: &str, region: &str) -> bool {
    match location {
        "us" => region.starts_with("us-"),
        "eu" => region.starts_with("europe-"),
        "asia" => region.starts_with("asia-"),
        location if location.contains('-') => location == region,
        _ => true,
    }
}

fn prepared(cloud: &Cloud<'_>, data: &str) -> Result<(), Error> {
    let manifest = format!("{}/manifest.json", data.trim_end_matches('/'));
    let call = cloud.place.call(["storage", "ls"], [manifest]);
    let answer = cloud.shell.run(&call)?;
    match answer.ok() {
        true => Ok(()),
        false => Err(failed(
            "data",
            format!(
                "{data} has no manifest.json, so it is no prepared data: {}",
                answer.said()
            ),
            format!("`pretrain prepare --output {data} INPUT...` makes it"),
        )),
    }
}

/// `us-central2` of `us-central2-b`.
fn region_of(zone: &str) -> &str {
    zone.rsplit_once('-').map_or(zone, |(region, _)| region)
}

/// `gs://BUCKET` of `gs://BUCKET/KEY`.
fn bucket_of(url: &str) -> String {
    let rest = url.strip_prefix("gs://").unwrap_or(url);
    format!("gs://{}", rest.split('/').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_quota_is_that_of_the_chips_the_pricing_and_the_zone() {
        let quota = |id: &str, zone: &str, value: &str| {
            json!({"quotaId": id, "dimensionsInfos": [
                {"dimensions": {"zone": zone}, "details": {"value": value}},
                {"dimensions": {}, "details": {"value": "9999"}, "applicableLocations": ["elsewhere"]},
            ]})
        };
        let quotas = [
            quota("TPUV4PodPerProjectPerZoneForTPUAPI", "us-central2-b", "0"),
            quota(
                "TPUV4PreemptiblePodPerProjectPerZoneForTPUAPI",
                "us-central2-b",
                "64",
            ),
            quota("TPUV5PPerProjectPerZoneForTPUAPI", "us-east5-a", "128"),
            quota(
                "TPUV5sLitepodServingPerProjectPerZoneForTPUAPI",
                "us-east5-a",
                "8",
            ),
        ];
        let of =
            |kind, pricing, zone| largest(&quotas, kind, pricing, zone).map(|(_, limit)| limit);
        assert_eq!(of("TPUV4", Pricing::OnDemand, "us-central2-b"), Some(0));
        assert_eq!(of("TPUV4", Pricing::Spot, "us-central2-b"), Some(64));
        assert_eq!(of("TPUV4", Pricing::Reserved, "us-central2-b"), None);
        assert_eq!(of("TPUV5P", Pricing::OnDemand, "us-east5-a"), Some(128));
        assert_eq!(of("TPUV5sLitepod", Pricing::OnDemand, "us-east5-a"), None);
        assert_eq!(of("TPUV4", Pricing::Spot, "europe-west4-a"), None);
    }

    #[test]
    fn a_bucket_is_near_where_its_location_has_the_region() {
        let region = region_of("us-central2-b");
        for (location, near) in [
            ("us-central2", true),
            ("us-central1", false),
            ("us", true),
            ("eu", false),
            ("nam4", true),
        ] {
            assert_eq!(covers(location, region), near, "{location}");
        }
    }
}
