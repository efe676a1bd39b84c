//! Any bytes as a table of answers: answers with an id and a word, or an error that names the line.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pfc_findings::table;

fuzz_target!(|data: &[u8]| {
    if let Ok((answers, _)) = table::parse(data) {
        assert!(answers.iter().all(|answer| answer.line > 0 && !answer.answer.is_empty()));
    }
});
