//! `ionian cluster status`: how each controller stands by its own word, and whether anything can be changed.

use ionian_control_client::Refusal;
use ionian_control_client::proto::control::StatusReply;
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::operator::LookArgs;
use crate::table::Table;

type Answers = [(String, Result<StatusReply, Refusal>)];

pub(super) fn run(args: &LookArgs) -> anyhow::Result<Exit> {
    let answers = args.at.client()?.status();
    let picture = Picture::of(&answers);
    args.out
        .emit(&picture.text(&answers), &picture.json(&answers))?;
    Ok(match (&picture.leader, picture.reachable) {
        (Some(_), _) => Exit::Done,
        (None, 0) => Exit::Failed,
        (None, _) => Exit::Unable,
    })
}

/// What the answers say together.
struct Picture {
    cluster: String,
    /// The one that leads with a majority behind it, and its term.
    leader: Option<(u64, u64)>,
    reachable: usize,
    /// Members by the word of whoever knows most.
    members: Vec<(u64, String, bool)>,
    version: u64,
}

impl Picture {
    fn of(answers: &Answers) -> Self {
        let known = || {
            answers
                .iter()
                .filter_map(|(_, answer)| answer.as_ref().ok())
        };
        let leads = |reply: &&StatusReply| reply.leader == reply.id && reply.id != 0;
        let leader = known().filter(leads).max_by_key(|reply| reply.term);
        let newest = leader.or_else(|| known().max_by_key(|reply| reply.applied_index));
        let members = newest.map_or_else(Vec::new, |reply| {
            let members = reply.members.iter();
            members
                .map(|one| (one.id, one.address.clone(), one.voter))
                .collect()
        });
        Self {
            cluster: known()
                .next()
                .map_or_else(String::new, |reply| reply.cluster.clone()),
            leader: leader.map(|reply| (reply.id, reply.term)),
            reachable: known().count(),
            members,
            version: known().map(|reply| reply.state_version).max().unwrap_or(0),
        }
    }

    /// One sentence on what can be done.
    fn verdict(&self, asked: usize) -> String {
        let Self { reachable, .. } = self;
        let voters = self.members.iter().filter(|(_, _, voter)| *voter).count();
        match &self.leader {
            Some((id, term)) => format!(
                "cluster {}: controller {id} leads in term {term}; {reachable} of {asked} controllers reachable, {voters} vote; state version {}",
                self.cluster, self.version
            ),
            None if *reachable == 0 => String::from(
                "no controller answers: appends and reads go on; start the controllers, or see why they cannot be reached",
            ),
            None if self.members.is_empty() => format!(
                "cluster {}: the controllers are in no group yet: begin one with `ionian cluster init`",
                self.cluster
            ),
            None => format!(
                "NO QUORUM: {reachable} of {asked} controllers reachable and no leader with {} of {voters} behind it; nothing can be changed, appends and reads go on",
                voters / 2 + 1
            ),
        }
    }

    fn text(&self, answers: &Answers) -> String {
        let mut table = Table::headed(&[
            "controller",
            "address",
            "version",
            "applied",
            "attached",
            "standing",
        ]);
        for (address, answer) in answers {
            match answer {
                Ok(reply) => table.row(&[
                    reply.id.to_string(),
                    address.clone(),
                    reply.state_version.to_string(),
                    reply.applied_index.to_string(),
                    reply.attached.to_string(),
                    reply.standing.clone(),
                ]),
                Err(refusal) => {
                    let member = self.members.iter().find(|(_, at, _)| at == address);
                    let id = member.map_or_else(|| String::from("-"), |(id, ..)| id.to_string());
                    let dash = || String::from("-");
                    table.row(&[
                        id,
                        address.clone(),
                        dash(),
                        dash(),
                        dash(),
                        refusal.sentence.clone(),
                    ]);
                }
            }
        }
        let mut text = format!("{}\n\n{}", self.verdict(answers.len()), table.render());
        for (id, address, _) in self.unasked(answers) {
            text += &format!(
                "controller {id} at {address} is a member, and the configuration does not name it\n"
            );
        }
        text
    }

    /// Members that were not asked.
    fn unasked<'a>(
        &'a self,
        answers: &'a Answers,
    ) -> impl Iterator<Item = &'a (u64, String, bool)> {
        let asked = |at: &String| answers.iter().any(|(address, _)| address == at);
        self.members.iter().filter(move |(_, at, _)| !asked(at))
    }

    fn json(&self, answers: &Answers) -> Value {
        let one = |(address, answer): &(String, Result<StatusReply, Refusal>)| match answer {
            Ok(reply) => json!({
                "address": address, "reachable": true, "id": reply.id, "standing": reply.standing,
                "leader": reply.leader, "term": reply.term, "version": reply.state_version,
                "last_log_index": reply.last_log_index, "applied_index": reply.applied_index,
                "snapshot_index": reply.snapshot_index, "attached": reply.attached,
            }),
            Err(refusal) => {
                json!({"address": address, "reachable": false, "reason": refusal.sentence})
            }
        };
        let member = |(id, address, voter): &(u64, String, bool)| json!({"id": id, "address": address, "voter": voter});
        json!({
            "cluster": self.cluster,
            "quorum": self.leader.is_some(),
            "leader": self.leader.map(|(id, _)| id),
            "term": self.leader.map(|(_, term)| term),
            "version": self.version,
            "verdict": self.verdict(answers.len()),
            "members": self.members.iter().map(member).collect::<Vec<_>>(),
            "controllers": answers.iter().map(one).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ionian_control_client::Why;
    use ionian_control_client::proto::control::Member;

    fn reply(id: u64, leader: u64) -> (String, Result<StatusReply, Refusal>) {
        let member = |id: u64| Member {
            id,
            address: format!("h:{id}"),
            voter: true,
            matched: None,
        };
        let reply = StatusReply {
            id,
            cluster: String::from("sea"),
            leader,
            term: 4,
            state_version: 9,
            members: (1..=3).map(member).collect(),
            ..StatusReply::default()
        };
        (format!("h:{id}"), Ok(reply))
    }

    fn silent(id: u64) -> (String, Result<StatusReply, Refusal>) {
        let refusal = Refusal::without_effect(Why::Unreachable, "it cannot be reached");
        (format!("h:{id}"), Err(refusal))
    }

    #[test]
    fn whether_anything_can_be_changed_is_said_first() {
        let answers = [reply(1, 2), reply(2, 2), silent(3)];
        let picture = Picture::of(&answers);
        let text = picture.text(&answers);
        assert!(
            text.starts_with(
                "cluster sea: controller 2 leads in term 4; 2 of 3 controllers reachable"
            ),
            "{text}"
        );
        assert!(text.contains("it cannot be reached"));
        assert_eq!(picture.json(&answers)["quorum"], true);
        // What a follower says of a leader that does not answer is not enough.
        let answers = [reply(1, 2), silent(2), silent(3)];
        let picture = Picture::of(&answers);
        assert!(picture.text(&answers).starts_with("NO QUORUM: 1 of 3"));
        assert_eq!(picture.json(&answers)["leader"], Value::Null);
        let answers = [silent(1), silent(2)];
        let picture = Picture::of(&answers);
        assert!(picture.text(&answers).starts_with("no controller answers"));
    }
}
