//! The descriptors a backend watches.

use std::os::fd::RawFd;

use crate::ring::{DataPlane, EnterError, Slots};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A poll is in the kernel's hands.
    Armed,
    /// The poll failed; nothing is in the kernel's hands.
    Broken,
    /// Unwatched: the slot waits for the poll's last completion.
    Ending,
}

#[derive(Clone, Copy, Debug)]
struct Watch {
    fd: RawFd,
    token: u64,
    state: State,
}

#[derive(Debug)]
pub(super) struct Watches(Slots<Watch>);

impl Watches {
    pub(super) const fn new() -> Self {
        Self(Slots::new())
    }

    pub(super) fn add(&mut self, plane: &mut DataPlane, fd: RawFd, token: u64) -> Result<(), EnterError> {
        if self.find(token).is_some() {
            debug_assert!(false, "token {token} is watched already");
            tracing::error!(
                token,
                fd,
                "a backend watches one token twice; the second watch is ignored"
            );
            return Ok(());
        }
        match self.0.insert(Watch {
            fd,
            token,
            state: State::Armed,
        }) {
            Some(handle) => plane.watch(fd, handle),
            None => {
                tracing::error!(token, fd, "65,536 watches: this one is ignored");
                Ok(())
            }
        }
    }

    pub(super) fn end(&mut self, plane: &mut DataPlane, token: u64) -> Result<(), EnterError> {
        let Some(handle) = self.find(token) else {
            debug_assert!(false, "token {token} is not watched");
            return Ok(());
        };
        match self.0.get_mut(handle) {
            Some(watch) if watch.state == State::Armed => {
                watch.state = State::Ending;
                plane.unwatch(handle)
            }
            _ => {
                self.0.remove(handle);
                Ok(())
            }
        }
    }

    /// A poll's completion. The token to tell the backend, unless it has turned away.
    pub(super) fn completed(
        &mut self,
        plane: &mut DataPlane,
        handle: u32,
        result: i32,
        more: bool,
    ) -> Result<Option<u64>, EnterError> {
        let Some(watch) = self.0.get_mut(handle) else {
            return Ok(None);
        };
        let Watch { fd, token, state } = *watch;
        if state == State::Ending {
            if !more {
                self.0.remove(handle);
            }
            return Ok(None);
        }
        if !more {
            if result < 0 {
                // The backend is told as well: it finds the error when it reads.
                tracing::warn!(token, fd, errno = -result, "a watch ended with an error");
                watch.state = State::Broken;
            } else {
                plane.watch(fd, handle)?;
            }
        }
        Ok(Some(token))
    }

    fn find(&self, token: u64) -> Option<u32> {
        self.0
            .iter()
            .find(|(_, watch)| watch.token == token && watch.state != State::Ending)
            .map(|(handle, _)| handle)
    }
}

#[cfg(test)]
mod tests {
    use super::Watches;
    use crate::ring::{DataPlane, Event, Wait};
    use rustix::event::{EventfdFlags, eventfd};
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    fn watch_events(plane: &mut DataPlane) -> Vec<(u32, i32, bool)> {
        plane.enter(Wait::Until(Some(Duration::from_millis(50)))).unwrap();
        let mut events = Vec::with_capacity(8);
        plane.reap(&mut events);
        events
            .into_iter()
            .map(|event| match event {
                Event::Watch { watch, result, more } => (watch, result, more),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn tells_of_every_write_and_ends_when_told() {
        let Ok(mut plane) = DataPlane::new(8, 16) else { return };
        let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let mut watches = Watches::new();
        watches.add(&mut plane, event.as_raw_fd(), 7).unwrap();
        plane.enter(Wait::No).unwrap();
        for _ in 0..2 {
            rustix::io::write(&event, &1u64.to_ne_bytes()).unwrap();
            let [(watch, result, more)] = watch_events(&mut plane)[..] else {
                panic!("one completion")
            };
            assert!(result > 0 && more);
            assert_eq!(watches.completed(&mut plane, watch, result, more).unwrap(), Some(7));
        }
        watches.end(&mut plane, 7).unwrap();
        watches.add(&mut plane, event.as_raw_fd(), 7).unwrap();
        let mut told = Vec::new();
        for _ in 0..3 {
            for (watch, result, more) in watch_events(&mut plane) {
                told.extend(watches.completed(&mut plane, watch, result, more).unwrap());
            }
        }
        assert_eq!(
            told,
            [7],
            "the old watch is silent, the new one finds the eventfd readable"
        );
    }

    #[test]
    fn a_closed_descriptor_is_told_once() {
        let Ok(mut plane) = DataPlane::new(8, 16) else { return };
        let mut watches = Watches::new();
        watches.add(&mut plane, -1, 1).unwrap();
        let [(watch, result, more)] = watch_events(&mut plane)[..] else {
            panic!("one completion")
        };
        assert!(result < 0 && !more);
        assert_eq!(watches.completed(&mut plane, watch, result, more).unwrap(), Some(1));
        assert!(watch_events(&mut plane).is_empty());
        watches.end(&mut plane, 1).unwrap();
    }
}
