//! An event becomes a line of `hist/1`: what the generator writes and the judge's own tests read back.

use std::fmt::Write;

use crate::event::{Answer, Call, Event, FaultState, Header, Only, Order, Phase, Sight, White};

/// Appends the line of an event, with its newline.
pub fn write_line(out: &mut String, event: &Event) {
    // Writing into a string does not fail.
    let _ = line(out, event);
    out.push('\n');
}

fn line(out: &mut String, event: &Event) -> std::fmt::Result {
    match event {
        Event::Header(header) => head(out, header),
        Event::Inv {
            t,
            p,
            op,
            log,
            call,
        } => {
            write!(
                out,
                r#"{{"e":"inv","t":{t},"p":{p},"op":{op},"log":{log},"f":"#
            )?;
            match call {
                Call::Append {
                    cid,
                    name,
                    attempt,
                    h,
                    col,
                } => {
                    write!(out, r#""append","cid":{cid}"#)?;
                    identity(out, *name)?;
                    write!(out, r#","h":"{h:016x}","try":{attempt},"n":128"#)?;
                    number(out, "col", *col)?;
                    out.push('}');
                    Ok(())
                }
                Call::Read(gsn) => write!(out, r#""read","gsn":{gsn}}}"#),
                Call::Tail => write!(out, r#""tail"}}"#),
                Call::Trim(gsn) => write!(out, r#""trim","gsn":{gsn}}}"#),
                Call::Fill(gsn) => write!(out, r#""fill","gsn":{gsn}}}"#),
            }
        }
        Event::Ok { t, op, answer } => {
            write!(out, r#"{{"e":"ok","t":{t},"op":{op}"#)?;
            reply(out, answer)?;
            out.push('}');
            Ok(())
        }
        Event::Failed { t, op, no_effect } => {
            let (kind, error) = if *no_effect {
                ("fail", "refused")
            } else {
                ("info", "timeout")
            };
            write!(out, r#"{{"e":"{kind}","t":{t},"op":{op},"err":"{error}"}}"#)
        }
        Event::Sub {
            t,
            sub,
            log,
            start,
            last,
            only,
        } => {
            write!(
                out,
                r#"{{"e":"sub","t":{t},"sub":{sub},"log":{log},"start":{start},"final":{last}"#
            )?;
            match only {
                None => {}
                Some(Only::Client(of)) => write!(out, r#","only":"cid","of":{of}"#)?,
                Some(Only::Shard(of)) => write!(out, r#","only":"shard","of":{of}"#)?,
                Some(Only::Colour(of)) => write!(out, r#","only":"col","of":{of}"#)?,
            }
            out.push('}');
            Ok(())
        }
        Event::Dlv {
            t,
            sub,
            gsn,
            rec,
            spec,
            epoch,
        } => {
            write!(out, r#"{{"e":"dlv","t":{t},"sub":{sub},"gsn":{gsn}"#)?;
            sight(out, rec)?;
            write!(out, r#","spec":{spec}"#)?;
            number(out, "epoch", *epoch)?;
            out.push('}');
            Ok(())
        }
        Event::Gap {
            t,
            sub,
            lo,
            hi,
            kind,
            spec,
        } => write!(
            out,
            r#"{{"e":"gap","t":{t},"sub":{sub},"lo":{lo},"hi":{hi},"kind":"{}","spec":{spec}}}"#,
            kind.name()
        ),
        Event::Conf { t, sub, upto } => {
            write!(out, r#"{{"e":"conf","t":{t},"sub":{sub},"upto":{upto}}}"#)
        }
        Event::Void { t, sub, start } => {
            write!(out, r#"{{"e":"void","t":{t},"sub":{sub},"start":{start}}}"#)
        }
        Event::End { t, sub } => write!(out, r#"{{"e":"end","t":{t},"sub":{sub}}}"#),
        Event::Epoch {
            t,
            log,
            epoch,
            start,
        } => write!(
            out,
            r#"{{"e":"epoch","t":{t},"log":{log},"epoch":{epoch},"start":{start}}}"#
        ),
        Event::Nem {
            t,
            fault,
            state,
            beyond_f,
        } => {
            let state = match state {
                FaultState::Installed => "installed",
                FaultState::Skipped => "skipped",
                FaultState::Unknown => "unknown",
                FaultState::Healed => "healed",
            };
            write!(
                out,
                r#"{{"e":"nem","t":{t},"f":"{fault}","on":["s0r1"],"st":"{state}","beyond_f":{beyond_f}}}"#
            )
        }
        Event::Phase {
            t,
            log,
            phase,
            head,
            tail,
        } => {
            let phase = match phase {
                Phase::WarmUp => "warm-up",
                Phase::Load => "load",
                Phase::Heal => "heal",
                Phase::Final => "final",
            };
            write!(
                out,
                r#"{{"e":"phase","t":{t},"log":{log},"f":"{phase}","head":{head},"tail":{tail}}}"#
            )
        }
        Event::Done { t } => write!(out, r#"{{"e":"done","t":{t}}}"#),
        Event::White(white) => inside(out, white),
        Event::WhiteOther => write!(out, r#"{{"e":"wb","f":"other"}}"#),
    }
}

fn head(out: &mut String, header: &Header) -> std::fmt::Result {
    let order = match header.order {
        Order::Linearizable => "linearizable",
        Order::Fifo => "fifo",
        Order::Total => "total",
    };
    write!(
        out,
        r#"{{"v":1,"e":"hdr","run":"{}","seed":{},"sut":"{}","commit":"{}","world":"{}","clock_err_ns":{},"order":"{order}""#,
        header.run, header.seed, header.sut, header.commit, header.world, header.clock_err_ns
    )?;
    write!(
        out,
        r#","dedupe":{},"spec":{},"durability":"{}","shards":{},"replicas":{},"f":{}"#,
        header.dedupe, header.spec, header.durability, header.shards, header.replicas, header.f
    )?;
    write!(
        out,
        r#","dense":{},"beyond_f":{},"faults":{},"live_ns":{},"done":{}}}"#,
        header.dense, header.beyond_f, header.faults, header.live_ns, header.done
    )
}

fn reply(out: &mut String, answer: &Answer) -> std::fmt::Result {
    match answer {
        Answer::Appended {
            gsn,
            epoch,
            shard,
            rep,
            lsn,
            generation,
            name,
        } => {
            write!(out, r#","gsn":{gsn}"#)?;
            number(out, "epoch", *epoch)?;
            number(out, "shard", *shard)?;
            number(out, "rep", *rep)?;
            number(out, "lsn", *lsn)?;
            number(out, "gen", *generation)?;
            identity(out, *name)
        }
        Answer::Record(rec) => {
            out.push_str(r#","r":"rec""#);
            sight(out, rec)
        }
        Answer::Hole(kind) => write!(out, r#","r":"hole","kind":"{}""#, kind.name()),
        Answer::Trimmed => write!(out, r#","r":"trimmed""#),
        Answer::Unwritten => write!(out, r#","r":"unwritten""#),
        Answer::Tail { tail, head } => {
            write!(out, r#","tail":{tail}"#)?;
            number(out, "head", *head)
        }
        Answer::Head(head) => write!(out, r#","head":{head}"#),
        Answer::Done => Ok(()),
    }
}

fn inside(out: &mut String, white: &White) -> std::fmt::Result {
    match white {
        White::Cut {
            log,
            n,
            gsn,
            end,
            deltas,
        } => {
            write!(
                out,
                r#"{{"e":"wb","node":"root","f":"cut","log":{log},"n":{n},"gsn":{gsn},"end":{end},"d":["#
            )?;
            for (at, [shard, rep, prev, new]) in deltas.iter().enumerate() {
                let comma = if at > 0 { "," } else { "" };
                write!(out, "{comma}{shard},{rep},{prev},{new}")?;
            }
            out.push_str("]}");
            Ok(())
        }
        White::Persist {
            t,
            log,
            shard,
            rep,
            by,
            len,
        } => write!(
            out,
            r#"{{"e":"wb","t":{t},"node":"s{shard}r{by}","f":"persist","log":{log},"shard":{shard},"rep":{rep},"by":{by},"len":{len}}}"#
        ),
        White::Repair { n } => write!(out, r#"{{"e":"wb","f":"repair","n":{n}}}"#),
        White::Sum {
            log,
            shard,
            rep,
            len,
            h,
        } => write!(
            out,
            r#"{{"e":"wb","node":"s{shard}","f":"sum","log":{log},"shard":{shard},"rep":{rep},"len":{len},"h":"{h:016x}"}}"#
        ),
    }
}

fn sight(out: &mut String, rec: &Sight) -> std::fmt::Result {
    let Sight { cid, ses, csn, h } = rec;
    write!(out, r#","cid":{cid}"#)?;
    number(out, "ses", *ses)?;
    write!(out, r#","csn":{csn},"h":"{h:016x}""#)
}

fn identity(out: &mut String, name: Option<(u64, u64)>) -> std::fmt::Result {
    match name {
        Some((ses, csn)) => write!(out, r#","ses":{ses},"csn":{csn}"#),
        None => Ok(()),
    }
}

fn number(out: &mut String, key: &str, value: Option<u64>) -> std::fmt::Result {
    match value {
        Some(value) => write!(out, r#","{key}":{value}"#),
        None => Ok(()),
    }
}
