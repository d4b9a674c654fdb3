package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"blip2/pkg/published"
	"blip2/pkg/weights"
)

func newWeightsCmd(app *App) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "weights",
		Short: "Look into, convert, compare and assemble checkpoints",
		Long: `Reads what is published: folders of Hugging Face (safetensors or PyTorch, in one file or in shards),
checkpoints of LAVIS, encoder files, and runs and checkpoints of this program. PyTorch files are read without executing
anything in them.

Known networks are BLIP-2 (stage 1, with OPT, with T5), OPT, Flan-T5, CLIP, BLIP's captioner, BERT, and the image
encoders EVA ViT-g and CLIP ViT-L. A tensor is used, ignored for a stated reason, or an error.`,
		Example: `  blip2 weights inspect models/blip2_pretrained.pth
  blip2 weights assemble --stage 1 --vision eva_vit_g.pth --bert bert-base-uncased --out models/stage1
  blip2 weights convert --to hf --out models/hf runs/stage1
  blip2 weights check models/hf models/original`,
	}
	cmd.AddCommand(newWeightsInspectCmd(app), newWeightsConvertCmd(app), newWeightsCheckCmd(app),
		newWeightsAssembleCmd(app))
	return cmd
}

// hintFlags are the numbers of heads that no shape tells.
type hintFlags struct{ published.Hints }

func (f *hintFlags) add(cmd *cobra.Command) {
	const known = " (default: that of the published network of the same width)"
	cmd.Flags().IntVar(&f.VisionHeads, "vision-heads", 0, "attention heads of the image encoder"+known)
	cmd.Flags().IntVar(&f.QFormerHeads, "qformer-heads", 0, "attention heads of the Q-Former or text decoder"+known)
	cmd.Flags().IntVar(&f.LLMHeads, "llm-heads", 0, "attention heads of OPT"+known)
}

// check refuses numbers below 0.
func (f *hintFlags) check() error {
	return errors.Join(notNegative("--vision-heads", f.VisionHeads), notNegative("--qformer-heads", f.QFormerHeads),
		notNegative("--llm-heads", f.LLMHeads))
}

// notNegative refuses a number of a flag below 0; 0 stands for the default.
func notNegative(flag string, n int) error {
	if n < 0 {
		return usagef("%s %d: give a number above 0", flag, n)
	}
	return nil
}

// allowFlags let loading go on where tensors are missing or not known.
type allowFlags struct{ names []string }

func (f *allowFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&f.names, "allow", nil,
		"go on where tensors are `missing` or unexpected (or both, separated by a comma); they are still reported")
}

func (f *allowFlags) parse() (missing, unexpected bool, err error) {
	for _, name := range f.names {
		switch name {
		case "missing":
			missing = true
		case "unexpected":
			unexpected = true
		default:
			return false, false, usagef("--allow %q: want missing or unexpected", name)
		}
	}
	return missing, unexpected, nil
}

// parseDType reads --dtype; empty keeps the files' types.
func parseDType(name string) (weights.DType, error) {
	types := map[string]weights.DType{"": "", "f32": weights.F32, "bf16": weights.BF16, "f16": weights.F16}
	dtype, ok := types[name]
	if !ok {
		return "", usagef("--dtype %q is unknown; want one of f32, bf16, f16", name)
	}
	return dtype, nil
}

const dtypeUsage = "`type` of all numbers: f32, bf16 or f16 (default: those of the files)"
