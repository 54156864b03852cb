// What a checkpoint holds for a model, told before any weight is loaded: headers, and a few small tensors.
import type { QuantizationConfig } from '@q/config';
import { dtypes, type FloatDType, type ParameterSlot, type Source } from '@q/tensor';
import type { Checkpoint } from '../checkpoint.js';
import type { StoredLayer } from '../formats/format.js';
import { formatOfStored, recogniseWeight } from '../formats/registry.js';
import { matchNames, type NameMatch, type StoredTensorInfo } from './match-names.js';
import { partOf } from './sources.js';
import { decideQuantization } from './stored-quantization.js';
import { sameValues } from './values.js';

export interface SurveyOptions {
  /** `quantization_config` of config.json; while loading also the settings with which to compute. */
  readonly stored?: QuantizationConfig;
  /** Parameters that share memory in models that tie: target to source. */
  readonly tied?: Readonly<Record<string, string>>;
  /** Entries that hold no weights. */
  readonly ignored?: readonly RegExp[];
  /** Modules that stay dense when quantization_config names none. */
  readonly keepDense?: readonly string[];
  /** Modules that stay dense in any case, and in float32 where the others become float16. */
  readonly keepInFp32?: readonly string[];
  /** What stands before the base model's names in a model with a head. */
  readonly basePrefix?: string;
  /** Modules that a checkpoint may lack as a whole, by their path in the base model. */
  readonly optionalModules?: readonly string[];
  readonly signal?: AbortSignal;
}

/** Where each parameter comes from, and how the weights are stored. */
export interface WeightSurvey {
  /** Parameter to the tensor that has it, or the part of one; tied parameters are not in it. */
  readonly stored: ReadonlyMap<string, Source>;
  /** Parameter to where it is saved: of the places where it may be, the one where it was. */
  readonly saved: ReadonlyMap<string, Source>;
  /** Parameters that config.json ties, and that have other values of their own: they are not tied. */
  readonly untied: ReadonlySet<string>;
  /** Optional modules of which the checkpoint has nothing: the model is to be built without them. */
  readonly without: readonly string[];
  /** The quantization that the tensors have; undefined for a dense model. */
  readonly quantization: QuantizationConfig | undefined;
  /** Where the tensors say otherwise than config.json, and what is passed over: a line each. */
  readonly warnings: readonly string[];
}

/**
 * Compares a checkpoint with a model. What the tensors say wins over what config.json says of them; what makes no sense
 * is an error.
 * @param slots the model's parameters, with `tiedTo` where config.json ties
 * @throws CheckpointError for missing and misshapen tensors and for a config of another save; UnsupportedError for
 *   quantized formats that are not read; the signal's reason on abort.
 */
export async function surveyWeights(
  checkpoint: Checkpoint,
  slots: readonly ParameterSlot[],
  options: SurveyOptions = {},
): Promise<WeightSurvey> {
  const { stored: stated, keepDense, keepInFp32, signal } = options;
  const { folder, absent } = checkpoint;
  const match = matchNames({ ...options, tensors: infoOf(checkpoint), slots, absent, folder });
  const { stored, untied, warnings } = await settleTies(checkpoint, slots, match, signal);
  const layers: StoredLayer[] = [];
  let dtype: FloatDType | undefined;
  for (const slot of slots) {
    const source = slot.kind === 'linear' ? stored.get(slot.name) : undefined;
    if (slot.kind !== 'linear' || source === undefined) continue;
    const weight = recogniseWeight(checkpoint, source.name);
    const format = formatOfStored(weight);
    layers.push({ module: slot.module, ...format.layer(weight) });
    if (!stated) dtype ??= await format.originalDType?.(checkpoint, weight, { signal });
  }
  const original = dtype && dtypes[dtype].torch;
  const quantization = decideQuantization({ layers, stated, keepDense, keepInFp32, dtype: original });
  return {
    stored,
    saved: match.saved,
    untied,
    without: match.without,
    quantization: quantization.config,
    warnings: [...checkpoint.warnings, ...warnings, ...quantization.warnings],
  };
}

/**
 * The slots as the survey found them: where they are saved; those that have values of their own are not tied, and what
 * is optional and not there is left out.
 */
export const surveyedSlots = (slots: readonly ParameterSlot[], survey: WeightSurvey): ParameterSlot[] =>
  slots
    .filter(({ name, tiedTo }) => tiedTo !== undefined || survey.stored.has(name))
    .map((slot) => {
      const source = survey.saved.get(slot.name);
      return {
        ...slot,
        sources: source ? [source] : slot.sources,
        tiedTo: survey.untied.has(slot.name) ? undefined : slot.tiedTo,
      };
    });

function infoOf(checkpoint: Checkpoint): Map<string, StoredTensorInfo> {
  const tensors = new Map<string, StoredTensorInfo>(checkpoint.tensors);
  for (const [name, entry] of checkpoint.unsupported) tensors.set(name, { ...entry, dtype: entry.storedDtype });
  return tensors;
}

/** Ties what is stored twice with equal values, as transformers 5 does; other values stay apart. */
async function settleTies(
  checkpoint: Checkpoint,
  slots: readonly ParameterSlot[],
  match: NameMatch,
  signal?: AbortSignal,
): Promise<{ stored: Map<string, Source>; untied: Set<string>; warnings: string[] }> {
  const stored = new Map(match.stored);
  const untied = new Set<string>();
  const warnings = [...match.warnings];
  const shapes = new Map(slots.map(({ name, shape }) => [name, shape]));
  const entryOf = (name: string) => {
    const source = stored.get(name)!;
    return partOf(checkpoint.tensor(source.name), source, shapes.get(name)!);
  };
  for (const [target, source] of match.compare) {
    const [a, b] = [entryOf(target), entryOf(source)];
    if (await sameValues(checkpoint, a, b, { signal })) stored.delete(target);
    else {
      untied.add(target);
      warnings.push(
        `config.json ties ${target} to ${source}, but the checkpoint has both, with other values: they are not tied`,
      );
    }
  }
  return { stored, untied, warnings };
}
