//! Configuration files with `${NAME}` where a port or a folder is only known at run time.

use std::fmt::Display;

pub fn fill(template: &str, values: &[(&str, &dyn Display)]) -> String {
    let mut text = template.to_owned();
    for (name, value) in values {
        let place = format!("${{{name}}}");
        assert!(text.contains(&place), "the template has no {place}");
        text = text.replace(&place, &value.to_string());
    }
    if let Some(at) = text.find("${") {
        let end = text[at..].find('}').map_or(text.len(), |end| at + end + 1);
        panic!("nothing was given for {}", &text[at..end]);
    }
    text
}
