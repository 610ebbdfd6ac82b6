//! How a proxy is started: the few lines of a recipe, and what its placeholders stand for. The format is described in
//! tests/load/peers/README.md. Starts nothing; imports `command` only.

use crate::command::Failure;
use std::fs;
use std::path::{Path, PathBuf};

/// A recipe as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recipe {
    command: Vec<String>,
    /// A template to fill in.
    config: Option<PathBuf>,
    environment: Vec<(String, String)>,
}

/// What stands between `@` and `@`, and what it stands for.
pub(crate) type Values = Vec<(&'static str, String)>;

/// A recipe with everything filled in.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) command: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
}

impl Recipe {
    /// # Errors
    /// The file cannot be read, or a line of it is not understood.
    pub(crate) fn read(file: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(file)
            .map_err(|error| Failure::new(format!("cannot read {}: {error}", file.display())))?;
        Self::parse(&text, file.parent().unwrap_or(Path::new(".")))
            .map_err(|message| Failure::new(format!("{}: {message}", file.display())))
    }

    /// `dir` is where the template lies.
    fn parse(text: &str, dir: &Path) -> Result<Self, String> {
        let mut recipe = Self { command: Vec::new(), config: None, environment: Vec::new() };
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line.split_once(':').map_or((line, ""), |(k, v)| (k, v.trim()));
            match (key, value) {
                ("command", value) => {
                    recipe.command = value.split_whitespace().map(str::to_owned).collect();
                }
                ("config", value) => recipe.config = Some(dir.join(value)),
                ("env", value) if value.contains('=') => {
                    let (name, value) = value.split_once('=').unwrap_or_default();
                    recipe.environment.push((name.to_owned(), value.to_owned()));
                }
                _ => {
                    let wanted = "`command: ...`, `config: FILE` or `env: NAME=VALUE`";
                    return Err(format!("line {}: {line:?} is none of {wanted}", number + 1));
                }
            }
        }
        if recipe.command.is_empty() {
            return Err("there is no `command:` line".to_owned());
        }
        Ok(recipe)
    }

    /// Writes the filled-in template into `dir`.
    ///
    /// # Errors
    /// The template cannot be read or written, or has a placeholder that stands for nothing.
    pub(crate) fn fill(&self, values: &Values, dir: &Path) -> Result<Start, Failure> {
        let mut values = values.clone();
        values.push(("DIR", dir.display().to_string()));
        if let Some(template) = &self.config {
            let about = |what: &str, error: std::io::Error| {
                Failure::new(format!("cannot {what} {}: {error}", template.display()))
            };
            let text = fs::read_to_string(template).map_err(|error| about("read", error))?;
            let text = filled(&text, &values)
                .map_err(|message| Failure::new(format!("{}: {message}", template.display())))?;
            let config = dir.join(template.file_name().unwrap_or_default());
            fs::write(&config, text).map_err(|error| about("fill in", error))?;
            values.push(("CONFIG", config.display().to_string()));
        }
        let fill = |text: &String| filled(text, &values).map_err(Failure::new);
        let command = self.command.iter().map(fill).collect::<Result<_, _>>()?;
        let variable = |(name, value): &(String, String)| Ok((name.clone(), fill(value)?));
        let environment = self.environment.iter().map(variable).collect::<Result<_, Failure>>()?;
        Ok(Start { command, environment })
    }
}

fn filled(text: &str, values: &Values) -> Result<String, String> {
    let mut text = text.to_owned();
    for (name, value) in values {
        text = text.replace(&format!("@{name}@"), value);
    }
    // Comments may speak of placeholders; nothing else may have one left.
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    match lines.into_iter().find_map(placeholder) {
        Some(left) => Err(format!("@{left}@ stands for nothing")),
        None => Ok(text),
    }
}

fn placeholder(line: &str) -> Option<&str> {
    let is_name = |word: &&str| !word.is_empty() && word.chars().all(|c| c.is_ascii_uppercase());
    // The pieces between two signs: neither the first nor the last.
    let pieces: Vec<&str> = line.split('@').collect();
    let inner = pieces.get(1..pieces.len().saturating_sub(1)).unwrap_or_default();
    inner.iter().copied().find(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::root;

    #[test]
    fn a_recipe_is_read_and_filled_in() {
        let text = "# a\ncommand: a -p @PORT@ quic4@@ADDRESS@\nenv: N=@WORKERS@\n";
        let recipe = Recipe::parse(text, Path::new("x")).expect("a recipe");
        let values = vec![
            ("PORT", "1".to_owned()),
            ("WORKERS", "2".to_owned()),
            ("ADDRESS", "::1".to_owned()),
        ];
        let start = recipe.fill(&values, Path::new("/nowhere")).expect("all is known");
        assert_eq!(start.command, ["a", "-p", "1", "quic4@::1"]);
        assert_eq!(start.environment, [("N".to_owned(), "2".to_owned())]);
        assert!(recipe.fill(&Vec::new(), Path::new("/nowhere")).is_err());
    }

    #[test]
    fn what_is_not_understood_is_told() {
        let parse = |text| Recipe::parse(text, Path::new("x"));
        assert!(parse("").is_err_and(|message| message.contains("command")));
        assert!(parse("command: a\nenv: N\n").is_err_and(|message| message.contains("line 2")));
        assert!(parse("comand: a\n").is_err_and(|message| message.contains("line 1")));
    }

    #[test]
    fn the_recipes_of_the_project_can_be_read() {
        let dir = root().join("tests/load/peers");
        let files = dir.read_dir().expect("the folder").flatten().map(|entry| entry.path());
        let mut recipes = 0;
        for file in files.filter(|file| file.extension().is_some_and(|it| it == "recipe")) {
            let recipe = Recipe::read(&file).expect("a recipe");
            assert!(recipe.config.is_none_or(|config| config.exists()), "{}", file.display());
            recipes += 1;
        }
        assert!(recipes >= 4, "{recipes}");
    }

    #[test]
    fn a_placeholder_is_capital_letters_between_two_signs() {
        assert_eq!(placeholder("a@b.example @PORT@"), Some("PORT"));
        assert_eq!(placeholder("a@b.example, c@d.example"), None);
        assert_eq!(placeholder("PORT@"), None);
    }
}
