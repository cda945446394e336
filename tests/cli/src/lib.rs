//! Tests of `hn` as a person and a script meet it, with the built binaries; they are in `tests/`.
