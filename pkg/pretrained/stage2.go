package pretrained

import (
	"fmt"

	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/naming"
)

// LoadBridge fills what stage 2 trains in front of a language model, "opt" or "t5", from path: params are query tokens,
// the Q-Former's query side, ln_vision and the projection. The file or folder holds one of
//
//   - a checkpoint of stage 1, under LAVIS names (such as a run of this program) or Hugging Face's: its text side and
//     heads are dropped, and the projection is new;
//   - a checkpoint of stage 2, with the projection if that is to the same language model;
//   - BERT, where stage 1 is left out.
//
// What the file has not is drawn from seed. Errors and the Coverage are as for LoadVision; the Coverage says what was
// loaded, dropped and is new.
func LoadBridge(store *mlx.Store, params []model.Param, llm, path string, seed int64, o Options) (*Coverage, error) {
	cov, err := loadPath(store, Part{Part: naming.Part{
		What: "Q-Former", Setting: "qformer", Params: params, Tables: naming.BridgeTables(llm),
		Elsewhere: naming.BridgeElsewhere(),
	}}, path, o)
	if err == nil {
		err = model.Initialize(store, params, seed)
	}
	if err != nil {
		return cov, fmt.Errorf("Q-Former: %w", err)
	}
	return cov, nil
}

// LoadLLM fills a language model, naming.OPT or naming.T5, from path: a file or folder that holds it alone, as
// facebook/opt-* and google/flan-t5-* do, or inside a BLIP-2 folder of Hugging Face. params are its tensors with prefix
// in front, such as "opt_model.". Errors and the Coverage are as for LoadVision.
func LoadLLM(store *mlx.Store, network, prefix string, params []model.Param, path string, o Options) (*Coverage, error) {
	cov, err := loadPath(store, Part{Part: naming.Part{
		What: "language model", Absence: " (LAVIS's checkpoints have none: give the folder of OPT or Flan-T5)",
		Setting: "llm", Params: params, Tables: naming.LLMTables(network, prefix),
	}}, path, o)
	if err != nil {
		return cov, fmt.Errorf("language model: %w", err)
	}
	return cov, nil
}
