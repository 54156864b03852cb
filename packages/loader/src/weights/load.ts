import { CheckpointError, NativeError, type QuantizationConfig } from '@q/config';
import {
  denseWeight,
  type Backend,
  type DriverFailure,
  type FloatDType,
  type LinearSlot,
  type ParameterSlot,
  type Tensor,
  type TensorSlot,
} from '@q/tensor';
import type { Checkpoint } from '../checkpoint.js';
import { checkShape } from '../formats/check-shape.js';
import type { CheckpointFormat } from '../formats/format.js';
import { formatOfStored, recogniseWeight } from '../formats/registry.js';
import type { TensorEntry } from '../safetensors/header.js';
import { inFp32, type PrecisionOptions } from './precision.js';
import { keepDense, type Quantizer } from './quantize.js';
import { FileReader } from './reader.js';
import { partOf } from './sources.js';
import { surveyedSlots, surveyWeights, type SurveyOptions, type WeightSurvey } from './survey.js';

/** One step of loading. */
export interface LoadProgress {
  /** The parameter that was just queued. */
  readonly name: string;
  /** Checkpoint bytes read so far and in all. */
  readonly bytes: number;
  readonly totalBytes: number;
}

export interface LoadOptions extends SurveyOptions, PrecisionOptions {
  readonly backend: Backend;
  /** Default: nothing is quantized. */
  readonly quantizer?: Quantizer;
  /** What {@link surveyWeights} found for these slots. Default: it is called. */
  readonly survey?: WeightSurvey;
  /** Look at every weight, and name the first tensor that holds NaN or infinity. Reads files twice. Default false. */
  readonly checkFinite?: boolean;
  readonly onProgress?: (progress: LoadProgress) => void;
  /** Called with a line for what is passed over, or taken otherwise than the config says. */
  readonly onWarning?: (line: string) => void;
}

/** What {@link loadParameters} filled. */
export interface LoadedWeights {
  readonly slots: readonly ParameterSlot[];
  /** The quantization that the tensors have; undefined for a dense checkpoint. */
  readonly quantization: QuantizationConfig | undefined;
}

const op = 'load';

/**
 * Fills the slots from a checkpoint, tensor by tensor: each dense weight is read from the file straight to the device,
 * quantized there and freed, so that at most two dense tensors exist beside the model.
 * @returns the slots as they were filled: a parameter that config.json ties, and that has other values in the file, is
 *   not tied; and the quantization that the weights have
 * @throws CheckpointError for missing or misshapen tensors and for a config of another save, before any weight is
 *   loaded; for a scale, or a weight to be quantized, that is NaN or infinite; for a file that changes meanwhile; the
 *   signal's reason on abort. What was loaded by then belongs to the slots: dispose the model.
 */
export async function loadParameters(
  checkpoint: Checkpoint,
  slots: readonly ParameterSlot[],
  options: LoadOptions,
): Promise<LoadedWeights> {
  const survey = options.survey ?? (await surveyWeights(checkpoint, slots, options));
  if (!options.survey) for (const line of survey.warnings) options.onWarning?.(line);
  const settled = surveyedSlots(slots, survey);
  const loading = new Loading(checkpoint, options, survey);
  try {
    const loaded = new Map<string, Tensor>();
    for (const slot of settled) {
      options.signal?.throwIfAborted();
      try {
        if (slot.kind === 'linear') await loading.linear(slot, loaded);
        else loaded.set(slot.name, await loading.tensor(slot, loaded));
      } catch (error) {
        throw namingFile(error, checkpoint.tensors.get(survey.stored.get(slot.name)?.name ?? ''));
      }
    }
    await loading.finish();
    return { slots: settled, quantization: survey.quantization };
  } finally {
    loading.close();
  }
}

/** The state of one load: how much is on its way. */
class Loading {
  readonly #reader: FileReader;
  #bytes = 0;
  #inFlight: Promise<void> = Promise.resolve();
  readonly #inFp32: (slot: ParameterSlot) => boolean;

  constructor(
    private readonly checkpoint: Checkpoint,
    private readonly options: LoadOptions,
    private readonly survey: WeightSurvey,
  ) {
    this.#reader = new FileReader(checkpoint, options);
    this.#inFp32 = inFp32(options);
  }

  async tensor(slot: TensorSlot, loaded: ReadonlyMap<string, Tensor>): Promise<Tensor> {
    if (slot.tiedTo !== undefined) {
      const tensor = loaded.get(slot.tiedTo)!;
      slot.load(tensor, { shared: true });
      return tensor;
    }
    const source = this.survey.stored.get(slot.name)!;
    const entry = partOf(this.checkpoint.tensor(source.name), source, slot.shape);
    checkShape(entry, slot.shape);
    const tensor = await this.#reader.dense(entry, this.#dtypeOf(slot));
    slot.load(tensor);
    await this.#progress(entry);
    return tensor;
  }

  async linear(slot: LinearSlot, loaded: ReadonlyMap<string, Tensor>): Promise<void> {
    if (slot.tiedTo !== undefined) {
      slot.load(denseWeight(loaded.get(slot.tiedTo)!), { shared: true });
      return;
    }
    const source = this.survey.stored.get(slot.name)!;
    const whole = recogniseWeight(this.checkpoint, source.name);
    const stored = { ...whole, weight: partOf(whole.weight, source, slot.shape) };
    const format = formatOfStored(stored);
    const quantize = format.config ? undefined : (this.options.quantizer ?? keepDense)(slot);
    if (quantize) {
      checkShape(stored.weight, slot.shape);
      slot.load(await this.#reader.quantized(stored.weight, quantize));
    } else if (!format.config) {
      checkShape(stored.weight, slot.shape);
      slot.load(denseWeight((await this.#reader.dense(stored.weight, this.#dtypeOf(slot))).keep()));
    } else slot.load(await format.read(stored, slot, this.#reader, this.#settings(format)));
    await this.#progress(stored.weight);
  }

  /** Where the others become float16 there are layers that do not bear it, with their biases. */
  #dtypeOf(slot: ParameterSlot): FloatDType | undefined {
    return this.#inFp32(slot) ? 'f32' : this.options.dtype;
  }

  async finish(): Promise<void> {
    await this.#inFlight;
    await this.options.backend.flush();
    await this.#reader.checkFiles();
    this.options.backend.trim();
  }

  close(): void {
    this.#reader.close();
  }

  /** How to compute with a quantized weight: what the caller gives, else what tensors and config.json say. */
  #settings({ config }: CheckpointFormat): QuantizationConfig | undefined {
    return [this.options.stored, this.survey.quantization].find((given) => given && config?.asks(given));
  }

  /** Lets the device fall at most one tensor behind. */
  async #progress(entry: TensorEntry): Promise<void> {
    const queued = Promise.all([this.options.backend.flush(), this.#reader.checks()]).then(
      () => undefined,
      (error: unknown) => {
        throw namingFile(error, entry);
      },
    );
    queued.catch(() => undefined); // it is awaited one tensor later
    const before = this.#inFlight;
    this.#inFlight = queued;
    await before;
    this.#bytes += entry.bytes;
    this.options.onProgress?.({ name: entry.name, bytes: this.#bytes, totalBytes: this.checkpoint.dataBytes });
  }
}

/** What the device says of a file, with the tensor that was read from it. */
function namingFile(error: unknown, entry: TensorEntry | undefined): unknown {
  if (!(error instanceof NativeError) || (error.cause as Partial<DriverFailure> | undefined)?.code !== 'file' || !entry)
    return error;
  return new CheckpointError(op, 'a tensor cannot be read', {
    file: entry.file,
    tensor: entry.name,
    bytes: entry.bytes,
    offset: entry.offset,
    cause: error,
    why: (error.cause as Error).message,
    fix: 'the file has changed since it was opened: check it and load again',
  });
}
