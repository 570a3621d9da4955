//! Where an agent sends its class elsewhere (IBA 13.5.2).

use srp_addressing::Gid;

use super::{MAX_REDIRECTS, State, Step, Survey, SurveyError};
use crate::mad::{Attribute, ClassPortInfo, GSI_QKEY, GSI_QP, Mad, Redirect};
use crate::ports::{is_ipv4_mapped, pkey_index};
use crate::transport::{Address, Answer, QueryError};

/// Where a redirection leads that names half of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayTo {
    /// The LID is to be found.
    Gid(Gid),
    /// The GID is to be found.
    Lid(u16),
}

impl Survey {
    /// Takes the way asked for with [`Step::FindPath`], and the GID it leads to.
    pub fn path(&mut self, way: Result<(Address, Gid), &'static str>) -> Step {
        let step = match (way, self.awaits.take()) {
            (Ok((way, gid)), Some(redirect)) => {
                let found = self.redirected(&Redirect {
                    lid: way.lid,
                    ..redirect
                });
                let found = found.map(|to| Address {
                    sl: way.sl,
                    grh: way.grh,
                    pkey_index: way.pkey_index,
                    ..to
                });
                match found {
                    // An agent may name its own place when it tells where that is; else it would be asked for ever.
                    Ok(to) if to == self.to && matches!(self.state, State::ClassPortInfo) => {
                        self.ask(State::IoUnitInfo, Attribute::IO_UNIT_INFO, 0)
                    }
                    found => self.go(found, redirect.gid.or(Some(gid))),
                }
            }
            (way, _) => {
                let why = way.err().unwrap_or("a way nobody asked for");
                Step::Done(Err(SurveyError::BadRedirect { from: self.to, why }))
            }
        };
        self.kept(step)
    }

    /// What is known by now is not lost to a redirection that leads nowhere.
    pub(super) fn kept(&mut self, step: Step) -> Step {
        match step {
            Step::Done(Err(error)) if self.unit.is_some() => {
                tracing::debug!(to = %self.to, %error, "redirected in vain");
                self.abandon("the target has redirected this to a place that does not answer");
                self.done()
            }
            step => step,
        }
    }

    /// Follows a redirection: the ClassPortInfo asked for, or the one sent instead of any other answer
    /// (IBA 13.5.2). `None` when there is none.
    pub(super) fn follow(&mut self, mad: &Mad) -> Option<Step> {
        let status = mad.status();
        let asked_for = mad.attribute() == Attribute::CLASS_PORT_INFO && status.is_good();
        if !asked_for && !status.is_redirect() {
            return None;
        }
        let redirect = ClassPortInfo::from_data(&mad.data).redirect();
        if let Some(redirect) = redirect.filter(|_| self.to.lid != 0)
            && let Some(to) = match (redirect.gid, redirect.lid) {
                (Some(gid), 0) => Some(WayTo::Gid(gid)),
                (None, lid) if lid != self.to.lid => Some(WayTo::Lid(lid)),
                _ => None,
            }
        {
            self.awaits = Some(redirect);
            let pkey = redirect.pkey;
            return Some(Step::FindPath { to, pkey });
        }
        let to = match redirect.map(|redirect| self.redirected(&redirect)) {
            None if asked_for => return None,
            None => Err("it names no address"),
            // An agent may name its own place.
            Some(Ok(to)) if to == self.to && asked_for => return None,
            Some(to) => to,
        };
        Some(self.go(to, redirect.and_then(|redirect| redirect.gid)))
    }

    fn go(&mut self, to: Result<Address, &'static str>, gid: Option<Gid>) -> Step {
        match to {
            Err(why) => Step::Done(Err(SurveyError::BadRedirect { from: self.to, why })),
            Ok(to) if self.redirects == MAX_REDIRECTS => Step::Done(Err(SurveyError::RedirectLoop { to })),
            Ok(to) => {
                tracing::debug!(from = %self.to, %to, "redirected");
                self.redirects += 1;
                self.to = to;
                self.gid = gid.unwrap_or(self.gid);
                self.ask(State::ClassPortInfo, Attribute::CLASS_PORT_INFO, 0)
            }
        }
    }

    fn redirected(&self, redirect: &Redirect) -> Result<Address, &'static str> {
        let mut to = self.to;
        match (redirect.gid, &mut to.grh) {
            (Some(gid), _) if is_ipv4_mapped(gid) => {
                return Err("a GID with an IPv4 address, from which answers are dropped");
            }
            (Some(gid), Some(grh)) => {
                grh.gid = gid;
                grh.traffic_class = redirect.traffic_class;
                grh.flow_label = redirect.flow_label;
            }
            _ => {}
        }
        if to.lid != 0 {
            to.lid = redirect.lid;
            to.grh = None;
        }
        if let Some(pkey) = redirect.pkey {
            to.pkey_index = pkey_index(&self.pkeys, pkey).ok_or("a partition this port is not in")?;
        }
        to.sl = redirect.sl;
        to.qpn = if redirect.qpn == 0 { GSI_QP } else { redirect.qpn };
        to.qkey = if redirect.qkey == 0 { GSI_QKEY } else { redirect.qkey };
        Ok(to)
    }

    /// A redirection instead of an answer about a slot. ClassPortInfo redirects the class as a whole: the survey
    /// starts over at the new place. `None` when there is none, or none that can be followed.
    pub(super) fn follow_from_slot(&mut self, result: &Result<Answer, QueryError>) -> Option<Step> {
        let mad = result.as_ref().ok().filter(|mad| mad.status().is_redirect())?;
        match self.follow(mad)? {
            Step::Done(outcome) => {
                tracing::debug!(to = %self.to, error = ?outcome.err(), "a redirection is not followed");
                None
            }
            step => Some(step),
        }
    }
}
