//! Which column of a list or table holds what, by its name or by the user's word.

use std::str::FromStr;

use crate::{
    catalogue::People,
    column_names::{IDENTITIES, IMAGES, LABELS, is_image_column, same},
};

/// The user's word on columns: their names or, where a list has no header, their numbers from 1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColumnChoice {
    /// Of the image or its path.
    pub image: Option<String>,
    /// Of the label.
    pub label: Option<String>,
    /// Of the identity's name.
    pub identity: Option<String>,
}

impl FromStr for ColumnChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<ColumnChoice, String> {
        const WANTED: &str = "as in image=file_name,label=class";
        let mut choice = ColumnChoice::default();
        for part in text.split(',') {
            let (key, column) = part
                .split_once('=')
                .ok_or_else(|| format!("`{part}` is no KEY=COLUMN, {WANTED}"))?;
            let place = match key.trim() {
                "image" | "path" => &mut choice.image,
                "label" => &mut choice.label,
                "identity" | "id" => &mut choice.identity,
                other => {
                    return Err(format!(
                        "`{other}` is none of image, label and identity, {WANTED}"
                    ));
                }
            };
            if column.trim().is_empty() || place.replace(column.trim().to_owned()).is_some() {
                return Err(format!("`{key}` needs one column, {WANTED}"));
            }
        }
        Ok(choice)
    }
}

/// What is called how, where values are found by name and not by place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The image.
    pub image: String,
    /// The label.
    pub label: Option<String>,
    /// The identity's name.
    pub identity: Option<String>,
    /// What was taken for what, where that is a guess.
    pub guess: Option<String>,
}

/// Where what is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The column of the image or its path.
    pub image: usize,
    /// That of the label.
    pub label: Option<usize>,
    /// That of the identity's name.
    pub identity: Option<usize>,
    /// The names are those that the documentation gives, so that nothing was guessed.
    pub is_plain: bool,
}

impl ColumnChoice {
    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        *self == ColumnChoice::default()
    }

    /// As the command line has it.
    pub fn text(&self) -> String {
        let parts = [("image", &self.image), ("label", &self.label), ("identity", &self.identity)];
        let parts = parts.into_iter().filter_map(|(k, c)| Some(format!("{k}={}", c.as_ref()?)));
        parts.collect::<Vec<_>>().join(",")
    }

    /// Finds the columns among `names`; `None` where none can be the image's, or none says whom it
    /// shows although that is needed.
    ///
    /// # Errors
    ///
    /// That a column which was asked for is not there.
    pub fn find(&self, names: &[String], people: People) -> Result<Option<Found>, String> {
        let position = |wanted: &str| {
            let exactly = names.iter().position(|name| name.trim() == wanted);
            exactly.or_else(|| names.iter().position(|name| same(name, wanted)))
        };
        let asked = |wanted: &Option<String>| match wanted {
            None => Ok(None),
            Some(wanted) => match position(wanted) {
                Some(column) => Ok(Some(column)),
                None => Err(no_column(wanted, names)),
            },
        };
        let (image, label, identity) =
            (asked(&self.image)?, asked(&self.label)?, asked(&self.identity)?);
        let among = |known: &[&str]| known.iter().find_map(|name| position(name));
        let Some(image) = image.or_else(|| among(IMAGES)) else { return Ok(None) };
        let is_asked = label.or(identity).is_some();
        let (mut label, mut identity) = (label, identity);
        if !is_asked {
            label = position("label");
            identity = position("identity");
            // Other columns beside a label or identity may be of anything: an age, a gender.
            if label.or(identity).is_none() {
                label = among(LABELS);
                identity = if label.is_none() { among(IDENTITIES) } else { None };
            }
        }
        let is_free = |column: Option<usize>| column.filter(|column| *column != image);
        let (label, identity) = (is_free(label), is_free(identity));
        if label.or(identity).is_none() && people == People::Needed {
            return Ok(None);
        }
        let plain = |column: Option<usize>, plain: &[&str]| {
            column.is_none_or(|column| plain.iter().any(|name| same(&names[column], name)))
        };
        let is_plain = !self.is_empty()
            || plain(Some(image), &["path", "image"])
                && plain(label, &["label"])
                && plain(identity, &["identity"]);
        Ok(Some(Found { image, label, identity, is_plain }))
    }
}

impl ColumnChoice {
    /// Finds the columns among `names`, by name.
    ///
    /// # Errors
    ///
    /// That a column is missing.
    pub fn names(&self, names: &[String], people: People) -> Result<Names, String> {
        let found = self.find(names, people)?.ok_or_else(|| {
            let named: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            let named = named.join(", ");
            match names.iter().any(|name| is_image_column(name)) {
                true => format!("no column `label` or `identity` among {named}"),
                false => format!("no column `image` among {named}"),
            }
        })?;
        let name = |column: usize| names[column].clone();
        Ok(Names {
            image: name(found.image),
            label: found.label.map(name),
            identity: found.identity.map(name),
            guess: (!found.is_plain).then(|| found.describe(names)),
        })
    }
}

impl Found {
    /// What is taken for what, for a message.
    pub fn describe(&self, names: &[String]) -> String {
        let column = |what: &str, column: Option<usize>| {
            column.map(|column| format!("`{}` ({what})", names[column].trim()))
        };
        let all = [
            column("image", Some(self.image)),
            column("label", self.label),
            column("identity", self.identity),
        ];
        all.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// That a table has other columns.
pub fn no_column(wanted: &str, names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{}`", name.trim())).collect();
    format!("no column `{wanted}` among {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Places = (usize, Option<usize>, Option<usize>);

    fn find(choice: &str, names: &str) -> Result<Option<Places>, String> {
        let choice =
            if choice.is_empty() { ColumnChoice::default() } else { choice.parse().unwrap() };
        let names: Vec<String> = names.split(',').map(str::to_owned).collect();
        Ok(choice
            .find(&names, People::Needed)?
            .map(|found| (found.image, found.label, found.identity)))
    }

    #[test]
    fn columns_are_known_by_the_names_that_tools_give_them() {
        for (names, expected) in [
            ("path,label", (0, Some(1), None)),
            ("identity,path", (1, None, Some(0))),
            ("label,identity,path", (2, Some(0), Some(1))),
            ("file_name,label", (0, Some(1), None)),
            ("filename,class", (0, Some(1), None)),
            ("id,Image,person_id", (1, None, Some(2))),
            ("image_id,identity", (0, None, Some(1))),
            ("jpg,cls", (0, Some(1), None)),
            ("age,label,gender,image", (3, Some(1), None)),
            ("filename,id", (0, None, Some(1))),
            (" Image_Path , Label ", (0, Some(1), None)),
            ("ImagePath,ClassName", (0, None, Some(1))),
            ("labelID,img-Path", (1, Some(0), None)),
        ] {
            assert_eq!(find("", names), Ok(Some(expected)), "{names}");
        }
        for names in ["a,b", "path,age", "label,identity", "p0/1.jpg,0"] {
            assert_eq!(find("", names), Ok(None), "{names}");
        }
    }

    #[test]
    fn a_column_of_images_is_enough_where_people_are_optional() {
        let names = ["age", "image"].map(str::to_owned);
        let find = |people| ColumnChoice::default().find(&names, people).unwrap();
        assert_eq!(find(People::Needed), None);
        let found = find(People::Optional).unwrap();
        assert_eq!((found.image, found.label, found.identity), (1, None, None));
        let none = ["age", "label"].map(str::to_owned);
        assert_eq!(ColumnChoice::default().find(&none, People::Optional), Ok(None));
    }

    #[test]
    fn the_users_word_comes_first() {
        assert_eq!(find("label=who", "path,label,who"), Ok(Some((0, Some(2), None))));
        assert_eq!(find("image=b,identity=a", "a,b,label"), Ok(Some((1, None, Some(0)))));
        assert_eq!(find("label=class_id", "path,classID,class_id"), Ok(Some((0, Some(2), None))));
        let problem = "no column `who` among `path`, `label`";
        assert_eq!(find("label=who", "path,label"), Err(problem.into()));
        for bad in ["", "image", "image=", "size=3", "image=a,image=b"] {
            assert!(bad.parse::<ColumnChoice>().is_err(), "{bad}");
        }
    }
}
