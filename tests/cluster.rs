//! Several workers over Redis, as real processes under load: what joins, dies, sleeps and stops, and Redis itself. Who may run what
//! is shown on a clock of the test's own in src/cluster; here it is that nothing is lost or doubled, counted from outside.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]
#![allow(clippy::disallowed_methods, reason = "a test may wait for another process")]

mod support;

use std::time::{Duration, Instant};

use support::group::{Group, Load, Member, OwnRedis, wait_until};
use support::kafka::unique;
use support::process::service;

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
