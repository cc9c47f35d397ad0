//! What `ionian cluster init`, `join` and `remove` would make of the group of controllers. Nothing is changed; whether the
//! controllers take a change, which depends on who can be reached then, is known when it is made.

use std::fmt::Write;

use anyhow::bail;
use ionian_control_client::proto::control::MembersReply;
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::output::OutArgs;

/// The group as it would be.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    ones: Vec<One>,
    notes: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct One {
    id: u64,
    address: String,
    how: &'static str,
    stays: bool,
}

impl Group {
    /// A group that one controller begins.
    pub(super) fn begun(id: u64, address: &str) -> Self {
        let mut group = Self::default();
        group.push(id, address, "would begin the group", true);
        group
    }

    /// The group of now.
    fn of(members: &MembersReply) -> Self {
        let mut group = Self::default();
        for one in &members.members {
            let how = match (one.id == members.leader, one.voter) {
                (true, _) => "leads",
                (false, true) => "is a member",
                (false, false) => "learns, and does not vote yet",
            };
            group.push(one.id, &one.address, how, one.voter);
        }
        group
    }

    /// With a controller that joins.
    pub(super) fn joined(members: &MembersReply, id: u64, address: &str) -> anyhow::Result<Self> {
        let mut group = Self::of(members);
        let known = members.members.iter().find(|one| one.id == id);
        match known {
            Some(one) if one.address != address => bail!(
                "refused: controller {id} is a member already, at {}: remove it first and take a new number; nothing was changed",
                one.address
            ),
            Some(one) if one.voter => {
                let note = format!("nothing is to be done: controller {id} is a member");
                group.notes.push(note);
            }
            Some(_) => {
                group.ones.retain(|one| one.id != id);
                group.join(id, address);
            }
            None => group.join(id, address),
        }
        Ok(group)
    }

    /// One more that joins.
    pub(super) fn join(&mut self, id: u64, address: &str) {
        let how = "would get the state first, and be a member then";
        self.push(id, address, how, true);
    }

    /// Without a controller that goes.
    pub(super) fn without(members: &MembersReply, id: u64) -> anyhow::Result<Self> {
        let mut group = Self::of(members);
        let Some(one) = group.ones.iter_mut().find(|one| one.id == id) else {
            bail!("refused: controller {id} is not in the group; nothing was changed");
        };
        (one.how, one.stays) = ("would be taken out; its number is not used again", false);
        if group.voters() == 0 {
            bail!("refused: controller {id} is the whole group; nothing was changed");
        }
        Ok(group)
    }

    pub(super) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    fn push(&mut self, id: u64, address: &str, how: &'static str, stays: bool) {
        let address = address.to_owned();
        self.ones.push(One {
            id,
            address,
            how,
            stays,
        });
        self.ones.sort_by_key(|one| one.id);
    }

    fn voters(&self) -> usize {
        self.ones.iter().filter(|one| one.stays).count()
    }

    fn shown(&self) -> (String, Value) {
        let (voters, majority) = (self.voters(), self.voters() / 2 + 1);
        let mut text = String::new();
        for one in &self.ones {
            let _ = writeln!(text, "controller {} at {} {}", one.id, one.address, one.how);
        }
        let _ = writeln!(text, "a majority would be {majority} of {voters}");
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
        }
        let one = |one: &One| json!({"id": one.id, "address": one.address, "member": one.stays, "how": one.how});
        let json = json!({
            "plan": true, "members": self.ones.iter().map(one).collect::<Vec<_>>(),
            "voters": voters, "majority": majority, "notes": self.notes,
        });
        (text, json)
    }

    pub(super) fn tell(&self, out: &OutArgs) -> anyhow::Result<Exit> {
        let (text, json) = self.shown();
        out.emit(&text, &json)?;
        Ok(Exit::Done)
    }
}

#[cfg(test)]
mod tests {
    use ionian_control_client::proto::control::Member;

    use super::*;

    fn members() -> MembersReply {
        let member = |id: u64| Member {
            id,
            address: format!("10.0.0.{id}:7501"),
            voter: id < 3,
            matched: None,
        };
        MembersReply {
            members: (1..=3).map(member).collect(),
            leader: 2,
        }
    }

    #[test]
    fn who_joins_and_who_goes_is_shown() {
        let joined = Group::joined(&members(), 4, "10.0.0.4:7501").expect("it may");
        let (text, json) = joined.shown();
        let expected = "\
controller 1 at 10.0.0.1:7501 is a member
controller 2 at 10.0.0.2:7501 leads
controller 3 at 10.0.0.3:7501 learns, and does not vote yet
controller 4 at 10.0.0.4:7501 would get the state first, and be a member then
a majority would be 2 of 3
";
        assert_eq!(text, expected, "{text}");
        assert_eq!((&json["voters"], &json["plan"]), (&3.into(), &true.into()));
        let again = Group::joined(&members(), 1, "10.0.0.1:7501").expect("it is there");
        assert!(again.shown().0.contains("nothing is to be done"));
        let half = Group::joined(&members(), 3, "10.0.0.3:7501").expect("it learns");
        assert!(
            half.shown()
                .0
                .contains("controller 3 at 10.0.0.3:7501 would get")
        );
        let elsewhere = Group::joined(&members(), 1, "10.0.0.9:7501").expect_err("another address");
        assert!(elsewhere.to_string().contains("at 10.0.0.1:7501"));

        let (text, json) = Group::without(&members(), 3).expect("it may").shown();
        assert!(text.contains("controller 3 at 10.0.0.3:7501 would be taken out"));
        assert!(text.ends_with("a majority would be 2 of 2\n"), "{text}");
        assert_eq!(json["members"][2]["member"], false);
        assert!(Group::without(&members(), 9).is_err());

        let mut begun = Group::begun(1, "10.0.0.1:7501");
        begun.join(2, "10.0.0.2:7501");
        begun.note(String::from("controller 3 does not answer"));
        let (text, _) = begun.shown();
        assert!(text.starts_with("controller 1 at 10.0.0.1:7501 would begin the group\n"));
        assert!(
            text.ends_with("2 of 2\ncontroller 3 does not answer\n"),
            "{text}"
        );
    }
}
