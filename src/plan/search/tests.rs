use std::fs;
use std::path::Path;

use super::*;
use crate::config::{GradientType, Remat, resolve};

fn slice(name: &str) -> Slice {
    name.parse().unwrap()
}

fn choice(fsdp: usize, model: usize, remat: Remat, gradient_accumulation: usize) -> Layout {
    Layout {
        fsdp,
        model,
        zero: false,
        gradients: GradientType::Float32,
        remat,
        gradient_accumulation,
    }
}

fn candidate(choice: Layout, seconds: f64) -> Candidate {
    let prediction = Prediction {
        seconds,
        least_memory: 0,
    };
    Candidate { choice, prediction }
}

fn tried(choice: Layout, predicted_seconds: f64, seconds: f64) -> Trial {
    Trial {
        choice,
        predicted_seconds,
        outcome: Outcome::Compiled(Measured {
            cycles: None,
            seconds,
            communication_seconds: None,
            mfu: None,
            peak: 0,
        }),
    }
}

#[test]
fn choices_divide_the_slice_and_leave_the_recipe_as_it_is() {
    let config = resolve(Some("ankh-large"), &[]).unwrap();
    let choices = choice::all(&config, slice("v4-64"));
    assert!(choices.contains(&Layout::of(&config)));
    for choice in &choices {
        assert_eq!(
            choice::mesh(choice, slice("v4-64")).devices(),
            32,
            "{choice}"
        );
        let mut changed = choice.apply(&config);
        assert_eq!(changed.train.batch_size, config.train.batch_size);
        changed.sharding = config.sharding.clone();
        changed.train.remat = config.train.remat;
        changed.train.gradient_accumulation = config.train.gradient_accumulation;
        assert_eq!(changed, config, "{choice}");
    }
    // 16 heads over 32 devices do not divide.
    assert!(choices.iter().any(|c| c.model == 16));
    assert!(choices.iter().all(|c| c.model <= 16));
}

#[test]
fn predictions_follow_what_compilers_said() {
    let config = resolve(Some("ankh-large"), &["train.batch_size=1024".into()]).unwrap();
    let predictor = Predictor::new(&config, slice("v4-64")).unwrap();
    let predict = |choice| predictor.predict(&choice).unwrap();
    let usable = predictor.memory().unwrap();
    let plain = predict(choice(1, 1, Remat::Full, 1));
    // libtpu: 1.7 s, 20 GiB.
    assert!((1.0..2.2).contains(&plain.seconds), "{}", plain.seconds);
    assert!(
        (12 << 30..20 << 30).contains(&plain.least_memory),
        "{}",
        plain.least_memory
    );
    // Weights in parts take less memory.
    let split = predict(choice(32, 1, Remat::Full, 1));
    assert!(split.least_memory < plain.least_memory / 2);
    // Everything kept does not fit; in parts it needs less.
    let kept = predict(choice(1, 1, Remat::None, 1));
    assert!(kept.least_memory > usable);
    assert!(predict(choice(1, 1, Remat::None, 8)).least_memory < kept.least_memory / 2);
}

#[test]
fn the_configured_choice_comes_first_then_the_most_promising() {
    let own = choice(1, 1, Remat::Full, 1);
    let others = [choice(2, 1, Remat::Full, 1), choice(1, 2, Remat::Full, 1)];
    let candidates = vec![
        candidate(others[0], 2.0),
        candidate(own, 3.0),
        candidate(others[1], 1.0),
    ];
    assert_eq!(next(&candidates, &[], &own), Some(1));
    let seen = [tried(own, 3.0, 3.0)];
    let rest = vec![candidate(others[0], 2.0), candidate(others[1], 1.0)];
    assert_eq!(next(&rest, &seen, &own), Some(1));
}

#[test]
fn a_search_ends_when_nothing_left_can_win() {
    let own = choice(1, 1, Remat::Full, 1);
    let far = candidate(choice(8, 4, Remat::None, 8), 1.5);
    // Predictions were twice too high: 1.5 means 0.75.
    assert_eq!(next(&[far], &[tried(own, 2.0, 1.0)], &own), Some(0));
    let far = candidate(choice(8, 4, Remat::None, 8), 3.0);
    assert_eq!(next(&[far], &[tried(own, 2.0, 1.0)], &own), None);
}

#[test]
fn what_needs_more_than_what_did_not_fit_is_left_out() {
    let failed = choice(1, 1, Remat::Named, 2);
    for (other, left_out) in [
        (choice(1, 1, Remat::Named, 2), true),
        (choice(1, 1, Remat::None, 2), true),
        (choice(1, 1, Remat::Named, 1), true),
        (choice(1, 1, Remat::Named, 4), false),
        (choice(1, 1, Remat::Full, 1), false),
        (choice(2, 1, Remat::Named, 2), false),
    ] {
        assert_eq!(needs_as_much(&other, &failed), left_out, "{other}");
    }
    let spread = Layout {
        zero: true,
        ..failed
    };
    let narrow = Layout {
        gradients: GradientType::Bfloat16,
        ..failed
    };
    for smaller in [spread, narrow] {
        assert!(!needs_as_much(&smaller, &failed));
        assert!(needs_as_much(&failed, &smaller));
    }
}

#[test]
fn answers_are_kept_by_content() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::at(&directory.path().join("plans"));
    let config = resolve(Some("tiny"), &["train.batch_size=16".into()]).unwrap();
    let key = |config: &Config, slice: &str, plugin: &str| {
        Key::of(
            &LoweredStep::new(config, slice.parse().unwrap()).unwrap(),
            plugin,
        )
    };
    let own = key(&config, "cpu-8", "plugin");
    assert!(cache.get(&own).is_none());
    let outcome = tried(Layout::of(&config), 1.0, 2.0).outcome;
    cache.put(&own, &outcome);
    assert_eq!(cache.get(&own).unwrap().measured(), outcome.measured());

    let mut flags = config.clone();
    flags.compiler.flags.push("xla_a=1".into());
    let mut remat = config.clone();
    remat.train.remat = Remat::Named;
    for other in [
        key(&flags, "cpu-8", "plugin"),
        key(&remat, "cpu-8", "plugin"),
        key(&config, "cpu-4", "plugin"),
        key(&config, "cpu-8", "another"),
    ] {
        assert!(cache.get(&other).is_none());
    }
}

#[test]
fn a_compiler_that_died_is_asked_again() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::at(directory.path());
    let config = resolve(Some("tiny"), &[]).unwrap();
    let key = Key::of(
        &LoweredStep::new(&config, slice("cpu-1")).unwrap(),
        "plugin",
    );
    let died = CompileError::Died {
        how: "signal 9".into(),
        log: String::new(),
    };
    cache.put(&key, &Outcome::Failed(died));
    assert!(cache.get(&key).is_none());
    let message = "too large".to_owned();
    cache.put(&key, &Outcome::Failed(CompileError::Exhausted { message }));
    assert!(cache.get(&key).is_some());
}

/// A compiler's process played by a shell script that is given the request as `$2/request.json`.
fn played(directory: &Path, script: &str) -> Compiler {
    let program = directory.join("compiler");
    let text = format!(
        "if grep -q Plugin $2/request.json; then echo '{{\"Ok\":\"a plugin\"}}' > $2/answer.json; exit; fi\n{script}\n"
    );
    fs::write(&program, text).unwrap();
    Compiler::played_by(&program)
}

fn search(script: &str, time: Duration) -> Ranking {
    let directory = tempfile::tempdir().unwrap();
    let config = resolve(Some("tiny"), &["train.batch_size=4".into()]).unwrap();
    let search = Search {
        config: &config,
        slice: slice("cpu-2"),
        compiler: played(directory.path(), script),
        cache: None,
        limit: 3,
        time,
    };
    search.run(|_| ()).unwrap()
}

#[test]
fn a_search_survives_compilers_that_abort() {
    let script = "echo boom >&2; kill -ABRT $$";
    let ranking = search(script, Duration::from_secs(60));
    assert_eq!(ranking.tried.len(), 3);
    for tried in &ranking.tried {
        assert!(
            matches!(&tried.outcome, Outcome::Failed(CompileError::Died { how, log }) if how == "signal 6" && log == "boom"),
            "{tried:?}"
        );
    }
    assert!(ranking.best().is_none());
    assert!(!ranking.nothing_fits());
    assert!(ranking.to_string().contains("ended with signal 6"));
}

#[test]
fn a_search_ends_where_nothing_fits() {
    let script = r#"echo '{"Err":{"Exhausted":{"message":"too large"}}}' > $2/answer.json"#;
    let ranking = search(script, Duration::from_secs(60));
    assert!(ranking.best().is_none());
    assert!(ranking.tried.len() <= 3);
    assert!(ranking.to_string().contains("does not fit"));
}

#[test]
fn a_compiler_that_takes_too_long_is_stopped() {
    let start = Instant::now();
    let ranking = search("exec sleep 60", Duration::from_secs(2));
    assert!(start.elapsed() < Duration::from_secs(30));
    assert!(matches!(
        ranking.tried[0].outcome,
        Outcome::Failed(CompileError::TimedOut { .. })
    ));
}
