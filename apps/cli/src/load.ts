import { AutoModelForCausalLM, describeQuantization, type CausalModel } from '@q/transformers';
import { loadOptions, type ModelFlags } from './flags.js';
import { warn } from './output.js';
import { progressBar } from './progress.js';

export interface LoadedModel {
  readonly model: CausalModel;
  readonly loadMs: number;
}

/** Loads a model as the flags say, with a progress bar; its warnings go to stderr. The caller disposes it. */
export async function loadModel(id: string, flags: ModelFlags, signal: AbortSignal): Promise<LoadedModel> {
  using downloads = progressBar('fetching', 'bytes');
  using bar = progressBar('loading', 'bytes');
  const started = performance.now();
  const model = await AutoModelForCausalLM.fromPretrained(id, {
    ...loadOptions(flags, signal),
    onDownload: (progress) => downloads.update(progress.bytes, progress.totalBytes),
    onProgress: (progress) => {
      downloads.stop();
      bar.update(progress.bytes, progress.totalBytes);
    },
  });
  const loadMs = performance.now() - started;
  for (const line of model.warnings) warn(line, flags);
  return { model, loadMs };
}

/** How the linear layers are kept, in a word: `nf4 double quant`, `int8`, `bf16`. */
export const quantizationName = (model: CausalModel): string =>
  describeQuantization(model.quantizationConfig)?.name ?? model.dtype;
