//! Which goals belong to which setting, and what is compared.

use super::*;

fn figures(records: u64, p50_ns: u64) -> Figures {
    let mut latency = histogram();
    latency.saturating_record_n(p50_ns, records);
    Figures {
        records,
        elapsed: Duration::from_secs(1),
        latency,
        usage: Usage::default(),
    }
}

fn report(setting: Setting) -> Report {
    let measured = Measured {
        pipelined: vec![
            figures(4_000_000, 5_000_000),
            figures(2_000_000, 9_000_000),
            figures(3_500_000, 6_000_000),
        ],
        single: vec![figures(200_000, 5_000)],
        audited: 9_700_000,
    };
    Report {
        setting,
        measured,
        plain: None,
        limits: Limits::default(),
    }
}

#[test]
fn goals_belong_to_their_setting_and_compare_medians() {
    let setting = Setting {
        embedded: true,
        durability: String::from("D0"),
        record_bytes: 128,
        replicas: 2,
        ..Setting::default()
    };
    let json = report(setting.clone()).json();
    assert_eq!(
        json["pipelined"]["records_per_second"]["median"],
        3_500_000.0
    );
    assert_eq!(json["goals"][0]["met"], true);
    assert_eq!(
        (&json["goals"][1]["met"], &json["goals"][1]["goal"]),
        (&false.into(), &3.0.into())
    );
    let other = report(Setting {
        record_bytes: 100,
        ..setting
    });
    assert_eq!(other.json()["goals"].as_array().map(Vec::len), Some(0));
    assert!(other.text().contains("9,700,000 records by a subscriber"));
}

#[test]
fn what_a_tree_costs_is_a_ratio_with_a_goal_of_its_own() {
    let mut report = report(Setting {
        embedded: true,
        durability: String::from("D0"),
        record_bytes: 128,
        replicas: 2,
        depth_of_tree: 2,
        root_members: 3,
        ..Setting::default()
    });
    assert_eq!(report.json()["goals"].as_array().map(Vec::len), Some(2));
    report.plain = Some(Measured {
        pipelined: vec![figures(4_000_000, 5_000_000)],
        single: vec![figures(400_000, 2_400), figures(400_000, 2_600)],
        audited: 300_000,
    });
    let json = report.json();
    let goals = json["goals"].as_array().unwrap();
    assert_eq!((goals.len(), &goals[0]["met"]), (1, &true.into()), "{json}");
    let text = report.text();
    assert!(text.contains("p50 of one at a time 1.92,"), "{text}");
    assert!(text.contains("10,000,000 records by"), "{text}");
    report.plain.as_mut().unwrap().single = vec![figures(400_000, 2_000)];
    assert_eq!(report.json()["goals"][0]["met"], false);
    report.setting.depth_of_tree = 3;
    assert_eq!(report.json()["goals"].as_array().map(Vec::len), Some(0));
}

#[test]
fn flushed_goals_are_ratios_to_the_bare_device() {
    let setting = Setting {
        durability: String::from("D1"),
        record_bytes: 512,
        replicas: 2,
        ..Setting::default()
    };
    let mut report = report(setting);
    report.limits.chain_p50_ns = Some(4_000);
    report.limits.device_bytes_per_second = Some(1.0);
    let json = report.json();
    let met: Vec<bool> = json["goals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|goal| goal["met"] == true)
        .collect();
    assert_eq!(met, [false, true, true], "{json}");
}
