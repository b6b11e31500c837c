//! Several workers over Redis, as real processes under load: what joins, dies, sleeps and stops, and Redis itself. Who may run what
//! is shown on a clock of the test's own in src/cluster; here it is that nothing is lost or doubled, counted from outside.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]
#![allow(clippy::disallowed_methods, reason = "a test may wait for another process")]

mod support;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use support::group::{Group, Load, Member, OwnRedis, wait_until};
use support::kafka::unique;
use support::process::{Setup, Sink, service};

/// As the program has it.
const LEASE: Duration = Duration::from_secs(10);

fn counts(members: &[&Member]) -> Vec<usize> {
    members.iter().map(|member| member.takeovers().values().sum()).collect()
}

/// Start of three, kill -9 of one, another joins, FLUSHALL, a rolling restart, all under load.
#[test]
fn three_workers_share_and_hand_over_under_load() {
    const MAX_BYTES: u64 = 64 << 10;
    let Some(kafka) = service("SLUICE_TEST_KAFKA") else { return };
    let (topic, redis) = (unique("cluster"), OwnRedis::start());
    let load = Load::start(&kafka, &topic, 6, 6_000);
    let rotate = "tasks_max: 6\nrotate: { max_bytes: 64KiB, max_interval: 10m }\ncompression: { frame_bytes: 64KiB }\n";
    let group = Group::new(&kafka, &topic, &redis, rotate);
    let (first, second, third) = (group.start("w1", ""), group.start("w2", ""), group.start("w3", ""));
    group.wait_for_shares(&[&first, &second, &third], &[2, 2, 2]);

    let killed = Instant::now();
    second.running.kill();
    group.wait_for_shares(&[&first, &third], &[3, 3]);
    println!("the tasks of the dead worker run again after {:.1} s", killed.elapsed().as_secs_f64());

    let before = [first.tasks(), third.tasks()];
    let taken = [first.takeovers(), third.takeovers()];
    let fourth = group.start("w4", "");
    group.wait_for_shares(&[&first, &third, &fourth], &[2, 2, 2]);
    for ((member, before), taken) in [&first, &third].into_iter().zip(before).zip(taken) {
        assert!(member.tasks().is_subset(&before), "{} kept two of {before:?}", member.id);
        assert_eq!(member.takeovers(), taken, "{} started nothing again", member.id);
    }

    let started = counts(&[&first, &third, &fourth]);
    for _ in 0..3 {
        redis.run("cli", &["flushall"]);
        std::thread::sleep(Duration::from_secs(2));
    }
    group.wait_for_shares(&[&first, &third, &fourth], &[2, 2, 2]);
    println!("three FLUSHALL: takeovers {started:?} before, {:?} after", counts(&[&first, &third, &fourth]));

    let mut members = vec![first, third, fourth];
    for _ in 0..3 {
        let member = members.remove(0);
        let id = member.id.clone();
        let stopped = Instant::now();
        member.stop();
        group.wait_for_shares(&members.iter().collect::<Vec<_>>(), &[3, 3]);
        println!("{id} stopped, its tasks run again after {:.1} s", stopped.elapsed().as_secs_f64());
        members.push(group.start(&id, ""));
        group.wait_for_shares(&members.iter().collect::<Vec<_>>(), &[2, 2, 2]);
    }

    let records = load.end();
    members.into_iter().for_each(Member::stop);
    // Nothing was old enough: whatever is there was full, as well as that is known before it is compressed.
    let small: Vec<_> = group.files().into_iter().filter(|(_, bytes)| *bytes < MAX_BYTES * 3 / 4).collect();
    assert!(small.is_empty() && group.files().len() > 20, "{} files, small: {small:?}", group.files().len());
    group.archive_and_verify(records, 6);
}

/// Redis hangs for longer than a lease, then is killed: owners go on, nobody moves, a newcomer waits.
#[test]
fn redis_away_stops_nobody() {
    let Some(kafka) = service("SLUICE_TEST_KAFKA") else { return };
    let (topic, redis) = (unique("away"), OwnRedis::start());
    let load = Load::start(&kafka, &topic, 4, 2_000);
    let rotate = "tasks_max: 4\nrotate: { max_interval: 1s }\n";
    let group = Group::new(&kafka, &topic, &redis, rotate);
    let (first, second) = (group.start("w1", ""), group.start("w2", ""));
    let shares = group.wait_for_shares(&[&first, &second], &[2, 2]);
    let started = counts(&[&first, &second]);
    let away = |member: &Member| member.status().is_some_and(|status| status["cluster"]["away_since_ms"].is_i64());
    let archive_grows = || {
        for _ in 0..2 {
            let before = group.files().len();
            wait_until(|| group.files().len() > before, || format!("{before} files and no more"));
        }
    };

    redis.signal("STOP");
    let hung = Instant::now();
    wait_until(|| away(&first) && away(&second), || "status says away".to_owned());
    let third = group.start("w3", "");
    wait_until(|| away(&third), || "a newcomer says away".to_owned());
    // All leases end meanwhile.
    std::thread::sleep((LEASE + Duration::from_secs(1)).saturating_sub(hung.elapsed()));
    archive_grows();
    assert!(third.tasks().is_empty(), "without Redis nothing is taken");
    assert_eq!(counts(&[&first, &second]), started, "owners kept what they had");
    assert!(first.tasks() == shares["w1"] && second.tasks() == shares["w2"]);
    redis.signal("CONT");
    // Back: the newcomer gets its share. That nothing else moves, where nobody is slower than the others wait, is shown on a moved clock.
    let all = [&first, &second, &third];
    let even = || {
        let mut loads: Vec<usize> = all.iter().map(|member| member.tasks().len()).collect();
        loads.sort_unstable();
        loads == [1, 1, 2]
    };
    wait_until(even, || third.running.last_lines());
    println!("takeovers of two owners before Redis hung and after: {started:?}, {:?}", counts(&[&first, &second]));

    let started = counts(&all);
    let shares = all.map(Member::tasks);
    redis.run("kill", &[]);
    wait_until(|| all.into_iter().all(away), || "status says away".to_owned());
    archive_grows();
    assert_eq!((counts(&all), all.map(Member::tasks)), (started.clone(), shares));
    redis.run("start", &[]);
    wait_until(|| !all.into_iter().any(away), || "status says that it is back".to_owned());
    // Longer than anybody holds off.
    std::thread::sleep(Duration::from_secs(6));
    wait_until(even, || third.running.last_lines());
    println!("takeovers before Redis was killed and after: {started:?}, {:?}", counts(&all));

    let records = load.end();
    for member in [first, second, third] {
        assert!(member.running.log().contains("coordination is back"));
        member.stop();
    }
    group.archive_and_verify(records, 4);
}

/// SIGSTOP for longer than the lease, then SIGCONT: a real zombie. The logs lie on a Redis, too, on one of their own.
#[test]
fn a_worker_that_sleeps_through_its_lease_loses_its_tasks_and_nothing_else() {
    let Some(kafka) = service("SLUICE_TEST_KAFKA") else { return };
    let (topic, redis) = (unique("zombie"), OwnRedis::start());
    let load = Load::start(&kafka, &topic, 2, 2_000);
    let mut group = Group::new(&kafka, &topic, &redis, "tasks_max: 2\nrotate: { max_interval: 1s }\n");
    let logs = OwnRedis::start();
    group.more = format!("state: {{ url: \"{}\" }}", logs.url());
    let (first, second) = (group.start("w1", ""), group.start("w2", ""));
    group.wait_for_shares(&[&first, &second], &[1, 1]);
    first.running.signal("STOP");
    group.wait_for_shares(&[&second], &[2]);
    first.running.signal("CONT");
    // Whichever it learns first: from Redis that its lease is gone, or from the log that it was taken over.
    let told = ["another worker's now", "worker w2 has taken this task over"];
    wait_until(|| told.iter().any(|text| first.running.log().contains(text)), || first.running.last_lines());
    group.wait_for_shares(&[&first, &second], &[1, 1]);
    let records = load.end();
    first.stop();
    second.stop();
    group.archive_and_verify(records, 2);
    assert!(logs.run("cli", &["zcard", "{sluice:state}:names"]).trim().parse::<u64>().unwrap() > 10);
}

/// One task and three workers: one runs it, one waits, one only looks on. A job finds it held.
#[test]
fn standbys_take_over_from_who_stops() {
    let Some(kafka) = service("SLUICE_TEST_KAFKA") else { return };
    let (topic, redis) = (unique("standby"), OwnRedis::start());
    let load = Load::start(&kafka, &topic, 2, 1_000);
    let group = Group::new(&kafka, &topic, &redis, "rotate: { max_interval: 1s }\n");
    let (looker, first) = (group.start("w0", ", max_tasks: 0"), group.start("w1", ""));
    group.wait_for_shares(&[&looker, &first], &[0, 1]);
    let second = group.start("w2", "");
    let message = |member: &Member| member.status().unwrap_or_default()["tasks"][0]["message"].clone();
    wait_until(|| message(&second) == "worker w1 of the group runs it", || message(&second).to_string());
    first.stop();
    group.wait_for_shares(&[&looker, &second], &[0, 1]);
    assert!(looker.takeovers().is_empty());
    let records = load.end();
    second.stop();
    looker.stop();
    group.archive_and_verify(records, 2);
}

/// A worker without coordination takes over, by mistake. The group takes it back after a while, and the outsider leaves it at that.
#[test]
fn an_outsider_does_not_fight_back() {
    let Some(kafka) = service("SLUICE_TEST_KAFKA") else { return };
    let (topic, redis) = (unique("outsider"), OwnRedis::start());
    let load = Load::start(&kafka, &topic, 2, 1_000);
    let group = Group::new(&kafka, &topic, &redis, "rotate: { max_interval: 1s }\n");
    let first = group.start("w1", "");
    group.wait_for_shares(&[&first], &[1]);
    group.setup.write_worker(&kafka, "outsider", 0);
    let outsider = Member { id: "outsider".to_owned(), running: group.setup.start(&[], "outsider.log") };
    let told = |member: &Member, by: &str| {
        let text = format!("worker {by} has taken this task over");
        wait_until(|| member.running.log().contains(&text), || member.running.last_lines());
    };
    told(&first, "outsider");
    told(&outsider, "w1");
    group.wait_for_shares(&[&first, &outsider], &[1, 0]);
    let records = load.end();
    first.stop();
    // Its task ended by a takeover, which its exit status tells.
    let mut outsider = outsider;
    assert_eq!(outsider.running.terminate().code(), Some(3), "{}", outsider.running.last_lines());
    assert_eq!(counts(&[&outsider]), [1]);
    group.archive_and_verify(records, 2);
}

/// Two builds that differ in version, under load: a canary with one task beside two workers of the older, then one worker after the
/// other, one of them back again. What the canary would archive is compared with what was.
#[test]
fn a_newer_version_takes_over_one_worker_after_the_other() {
    const MAX_BYTES: u64 = 64 << 10;
    const PARTITIONS: u64 = 7;
    let Some(kafka) = service("SLUICE_TEST_KAFKA") else { return };
    let Some(newer) = service("SLUICE_TEST_NEWER").map(PathBuf::from) else { return };
    let older = PathBuf::from(env!("CARGO_BIN_EXE_sluice"));
    let versions = [&older, &newer].map(|program| {
        let said = Command::new(program).arg("--version").output().unwrap().stdout;
        String::from_utf8(said).unwrap().trim().strip_prefix("sluice ").unwrap().to_owned()
    });
    assert_ne!(versions[0], versions[1], "two builds of one version show nothing");
    let (topic, redis) = (unique("upgrade"), OwnRedis::start());
    let load = Load::start(&kafka, &topic, PARTITIONS, 2_100);
    let rotate = "tasks_max: 7\nrotate: { max_bytes: 64KiB, max_interval: 10m }\ncompression: { frame_bytes: 64KiB }\n";
    let group = Group::new(&kafka, &topic, &redis, rotate);
    let version = |member: &Member| member.status().unwrap()["version"].as_str().unwrap().to_owned();
    // Whoever has one more is not said.
    let evenly = |members: &[&Member]| {
        let shares = || {
            let mut shares: Vec<usize> = members.iter().map(|member| member.tasks().len()).collect();
            shares.sort_unstable();
            shares
        };
        wait_until(|| shares() == [2, 2, 3], || format!("{:?}", shares()));
    };

    let (first, second, third) = (group.start("w1", ""), group.start("w2", ""), group.start("w3", ""));
    evenly(&[&first, &second, &third]);
    // The third makes room for the canary.
    third.stop();
    wait_until(|| first.tasks().len() + second.tasks().len() == 7, || first.running.last_lines());
    let canary = group.start_program(&newer, "w3", ", max_tasks: 1");
    group.wait_for_shares(&[&first, &second, &canary], &[3, 3, 1]);
    assert_eq!([&first, &second, &canary].map(version), [0, 0, 1].map(|which: usize| versions[which].clone()));
    let objects = |member: &Member| {
        member.status().unwrap_or_default()["tasks"]
            .as_array()
            .map_or(0, |tasks| tasks.iter().filter_map(|task| task["objects"].as_u64()).sum())
    };
    // It archives: its task, which the older version had begun.
    wait_until(|| objects(&canary) > 0, || canary.running.last_lines());

    // The others, one after the other; the canary never takes more than its task.
    first.stop();
    group.wait_for_shares(&[&second, &canary], &[6, 1]);
    let first = group.start_program(&newer, "w1", "");
    group.wait_for_shares(&[&first, &second, &canary], &[3, 3, 1]);
    second.stop();
    group.wait_for_shares(&[&first, &canary], &[6, 1]);
    let second = group.start_program(&newer, "w2", "");
    group.wait_for_shares(&[&first, &second, &canary], &[3, 3, 1]);
    canary.stop();
    let third = group.start_program(&newer, "w3", "");
    evenly(&[&first, &second, &third]);
    assert!([&first, &second, &third].iter().all(|member| version(member) == versions[1]));

    // And back: the older version reads what the newer has written.
    first.stop();
    let first = group.start_program(&older, "w1", "");
    evenly(&[&first, &second, &third]);
    assert_eq!(version(&first), versions[0]);
    wait_until(|| objects(&first) > 0, || first.running.last_lines());

    let records = load.end();
    [first, second, third].into_iter().for_each(Member::stop);
    let small: Vec<_> = group.files().into_iter().filter(|(_, bytes)| *bytes < MAX_BYTES * 3 / 4).collect();
    assert!(small.is_empty() && group.files().len() > 20, "{} files, small: {small:?}", group.files().len());
    group.archive_and_verify(records, PARTITIONS);
    shadow_agrees(&group, &newer, &kafka, &topic);
}

/// A shadow of the archive: one partition by the other build, under another prefix, compared record by record.
fn shadow_agrees(group: &Group, newer: &std::path::Path, kafka: &str, topic: &str) {
    let shadow = Setup::new(kafka, topic, &Sink::File, "partitions: [0]\ntasks_max: 7\n");
    let mut running = shadow.start_program(newer, &[], "worker.yaml", &["--until-caught-up"], "shadow.log");
    let status = running.child.wait().unwrap();
    assert!(status.success(), "{status}: {}", running.last_lines());
    let (status, said, _) = shadow.command(&["verify", "app-logs"]);
    assert_eq!(status, 0, "{said}");
    let mut compared = 0;
    for app in apps(&shadow.archive()) {
        let of_partition_0 = |setup: &Setup| {
            let (status, records, trouble) = setup.command(&["cat", "app-logs", "--app", &app, "--json"]);
            assert_eq!(status, 0, "{trouble}");
            let records = records.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            records.filter(|record| record["partition"] == 0).collect::<Vec<_>>()
        };
        let (archived, shadowed) = (of_partition_0(&group.setup), of_partition_0(&shadow));
        assert!(archived == shadowed, "{app}: {} records archived, {} in the shadow", archived.len(), shadowed.len());
        compared += archived.len();
    }
    println!("{compared} records of partition 0 are the same in the shadow");
    assert!(compared > 1000, "{compared} records");
}

fn apps(archive: &str) -> Vec<String> {
    let names = std::fs::read_dir(archive).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with('_')).collect()
}
