package verify

import (
	"fmt"

	"blip2/pkg/dataset"
)

// textProcess runs kind text-process: captions and questions as prepared for the tokenizer, equal strings.
func textProcess(c *Case, k *checker) error {
	var config struct {
		Settings []struct {
			Processor string `json:"processor"`
			Prompt    string `json:"prompt"`
			MaxWords  int    `json:"max_words"`
		}
	}
	var inputs struct{ Texts []string }
	var expected struct{ Outputs [][]string }
	if err := c.config(&config); err != nil {
		return err
	}
	if err := c.readJSON("inputs.json", &inputs); err != nil {
		return err
	}
	if err := c.readJSON(expectedFile, &expected); err != nil {
		return err
	}
	if len(expected.Outputs) != len(config.Settings) {
		return fmt.Errorf("%d settings, but %d expected", len(config.Settings), len(expected.Outputs))
	}
	for s, setting := range config.Settings {
		var process func(string) string
		switch setting.Processor {
		case "caption":
			process = dataset.CaptionProcessor{MaxWords: setting.MaxWords, Prompt: setting.Prompt}.Process
		case "question":
			process = dataset.QuestionProcessor{MaxWords: setting.MaxWords}.Process
		default:
			return fmt.Errorf("setting %d: processor %q is unknown", s, setting.Processor)
		}
		got := make([]string, len(inputs.Texts))
		for i, text := range inputs.Texts {
			got[i] = process(text)
		}
		equalLists(k, fmt.Sprintf("outputs[%d]", s), got, expected.Outputs[s])
	}
	return nil
}
