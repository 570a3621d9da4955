//! Sessions: login, channels, commands in flight.
