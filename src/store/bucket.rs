//! What a bucket does to objects by itself: versions, lifecycle rules.
//!
//! Owns: which of it harms the state or the data, in words. Does not own: asking for it (the store's), what follows.
//!
//! A store's rules go by prefixes of whole keys. None of them can leave a folder out, so a rule that deletes the data after a year
//! deletes the tasks' logs too, unless it goes by the data's tags, which the logs do not have.

/// A bucket as it describes itself; `Err`: why that could not be read.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Of the store, within the bucket: empty, or ends in `/`.
    pub prefix: String,
    pub versioning: Result<Versioning, String>,
    pub rules: Result<Vec<Rule>, String>,
    /// The create-only header is ignored where there are, or were, versions.
    pub create_only_needs_no_versions: bool,
    /// Parts of unfinished uploads go away without a rule.
    pub removes_parts: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versioning {
    Off,
    Enabled,
    Suspended,
}

/// A lifecycle rule that is enabled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub id: String,
    /// Of whole keys.
    pub prefix: String,
    /// It goes by tags too, which nothing below `_sluice/` has.
    pub by_tags: bool,
    pub deletes: bool,
    /// A storage class that objects must be restored from.
    pub freezes: Option<String>,
    pub removes_parts: bool,
    pub removes_versions: bool,
}

impl Rule {
    /// Whether it concerns any key below `place`.
    fn reaches(&self, place: &str) -> bool {
        place.starts_with(&self.prefix) || self.prefix.starts_with(place)
    }

    /// Whether it concerns every key below `place`.
    fn covers(&self, place: &str) -> bool {
        place.starts_with(&self.prefix) && !self.by_tags
    }
}

/// Whether objects of a storage class can't be read before they are restored.
pub(super) fn is_frozen(class: &str) -> bool {
    let class = class.to_ascii_uppercase();
    class == "GLACIER" || class.contains("ARCHIVE")
}

impl Bucket {
    /// What an operator should know; empty when all is well.
    pub fn remarks(&self) -> Vec<String> {
        let mut out = Vec::new();
        match &self.versioning {
            Err(why) => out.push(format!("versioning could not be read: {why}")),
            Ok(Versioning::Enabled | Versioning::Suspended) if self.create_only_needs_no_versions => out.push(
                "the bucket has versioning, enabled or suspended: this store then overwrites what it was asked not to. Use a \
                 bucket that never had it, or keep the log elsewhere with state.url"
                    .to_owned(),
            ),
            Ok(_) => {}
        }
        match &self.rules {
            Err(why) => out.push(format!("lifecycle rules could not be read: {why}")),
            Ok(rules) => self.rules_remarks(rules, &mut out),
        }
        out
    }

    fn rules_remarks(&self, rules: &[Rule], out: &mut Vec<String>) {
        let state = format!("{}_sluice/", self.prefix);
        for rule in rules.iter().filter(|rule| rule.reaches(&state) && !rule.by_tags) {
            let does = match (&rule.freezes, rule.deletes) {
                (_, true) => "deletes".to_owned(),
                (Some(class), false) => format!("moves to {class}"),
                (None, false) => continue,
            };
            out.push(format!(
                "the lifecycle rule {:?} {does} what lies below {state}, the tasks' state: let it go by sink.tags, which the \
                 state does not have, or keep the log elsewhere with state.url",
                rule.id
            ));
        }
        let data = if self.prefix.is_empty() { "the whole bucket" } else { self.prefix.as_str() };
        if !self.removes_parts && !rules.iter().any(|rule| rule.removes_parts && rule.covers(&self.prefix)) {
            out.push(format!(
                "no lifecycle rule removes the parts of unfinished uploads of {data}: what a killed worker left is paid for until \
                 somebody does. Add one with AbortIncompleteMultipartUpload"
            ));
        }
        let versions = matches!(self.versioning, Ok(Versioning::Enabled));
        if versions && !rules.iter().any(|rule| rule.removes_versions && rule.covers(&state)) {
            out.push(format!(
                "the bucket keeps versions, and no lifecycle rule removes old ones below {state}: log entries that were cleaned up \
                 stay. Add one with NoncurrentVersionExpiration"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(prefix: &str) -> Rule {
        Rule { id: "r".to_owned(), prefix: prefix.to_owned(), ..Rule::default() }
    }

    fn parts(prefix: &str) -> Rule {
        Rule { removes_parts: true, ..rule(prefix) }
    }

    fn bucket(rules: Vec<Rule>) -> Bucket {
        Bucket {
            prefix: "logs/prod/".to_owned(),
            versioning: Ok(Versioning::Off),
            rules: Ok(rules),
            create_only_needs_no_versions: false,
            removes_parts: false,
        }
    }

    fn remarks(rules: &[Rule]) -> Vec<String> {
        bucket([&[parts("logs/")], rules].concat()).remarks()
    }

    #[test]
    fn rules_that_reach_the_state_are_told() {
        for prefix in ["", "l", "logs/prod/", "logs/prod/_sluice/", "logs/prod/_sluice/app-logs/"] {
            let told = remarks(&[Rule { deletes: true, ..rule(prefix) }]);
            assert!(told.len() == 1 && told[0].contains("\"r\" deletes"), "{prefix:?}: {told:?}");
            let told = remarks(&[Rule { freezes: Some("GLACIER".to_owned()), ..rule(prefix) }]);
            assert!(told.len() == 1 && told[0].contains("moves to GLACIER"), "{prefix:?}: {told:?}");
            assert_eq!(remarks(&[Rule { deletes: true, by_tags: true, ..rule(prefix) }]), [""; 0]);
            assert_eq!(remarks(&[rule(prefix)]), [""; 0]);
        }
        for elsewhere in ["logs/test/", "logs/prod/payments/", "logs/prod/_unknown/"] {
            assert_eq!(remarks(&[Rule { deletes: true, ..rule(elsewhere) }]), [""; 0]);
        }
    }

    #[test]
    fn parts_that_nobody_removes_are_told() {
        for rules in [vec![], vec![parts("logs/prod/payments/")], vec![Rule { by_tags: true, ..parts("") }]] {
            let told = bucket(rules).remarks();
            assert!(told.len() == 1 && told[0].contains("AbortIncompleteMultipartUpload"), "{told:?}");
        }
        assert_eq!(Bucket { removes_parts: true, ..bucket(vec![]) }.remarks(), [""; 0]);
    }

    #[test]
    fn versions_are_told_where_they_harm() {
        let with = |versioning, needs_none, rules| {
            let bucket =
                Bucket { versioning: Ok(versioning), create_only_needs_no_versions: needs_none, ..bucket(rules) };
            bucket.remarks().join("\n")
        };
        let gone = || vec![parts("logs/"), Rule { removes_versions: true, ..rule("") }];
        assert_eq!(with(Versioning::Enabled, false, gone()), "");
        assert_eq!(with(Versioning::Suspended, false, gone()), "");
        assert!(with(Versioning::Enabled, false, vec![parts("")]).contains("NoncurrentVersionExpiration"));
        for versioning in [Versioning::Enabled, Versioning::Suspended] {
            assert!(with(versioning, true, gone()).contains("overwrites"));
        }
        assert_eq!(with(Versioning::Off, true, gone()), "");
    }

    #[test]
    fn what_could_not_be_read_is_told_and_no_more() {
        let denied = Bucket {
            versioning: Err("403 AccessDenied".to_owned()),
            rules: Err("403 AccessDenied".to_owned()),
            ..bucket(vec![])
        };
        let told = denied.remarks();
        assert!(told.len() == 2 && told.iter().all(|remark| remark.contains("could not be read: 403")), "{told:?}");
    }

    #[test]
    fn classes_that_freeze() {
        for class in ["GLACIER", "DEEP_ARCHIVE", "Archive", "ColdArchive", "DeepColdArchive"] {
            assert!(is_frozen(class), "{class}");
        }
        for class in ["STANDARD_IA", "GLACIER_IR", "IA", "INTELLIGENT_TIERING", "Standard"] {
            assert!(!is_frozen(class), "{class}");
        }
    }
}
