import { CheckpointError, NativeError, type BitsAndBytesConfig, type QuantizationConfig } from '@q/config';
import {
  cast,
  isFloat,
  type Backend,
  type DriverFailure,
  type FloatDType,
  type LinearSlot,
  type ParameterSlot,
  type Tensor,
  type TensorSlot,
  type Weight,
} from '@q/tensor';
import {
  checkWeightFormat,
  read4bitState,
  recogniseWeight,
  type StoredBnb4bit,
  type StoredBnbInt8,
} from '../bnb/recognise.js';
import { checkNestedQuantMap, checkQuantMap, checkScales } from '../bnb/validate.js';
import type { Checkpoint } from '../checkpoint.js';
import type { TensorEntry } from '../safetensors/header.js';
import { checkUnchanged, currentIdentity } from '../small-file.js';
import { computeDtypeOf, keepDense, type Quantizer } from './quantize.js';
import { surveyedSlots, surveyWeights, type SurveyOptions, type WeightSurvey } from './survey.js';
import { checkFinite, checkQuantized } from './values.js';

/** One step of loading. */
export interface LoadProgress {
  /** The parameter that was just queued. */
  readonly name: string;
  /** Checkpoint bytes read so far and in all. */
  readonly bytes: number;
  readonly totalBytes: number;
}

export interface LoadOptions extends SurveyOptions {
  readonly backend: Backend;
  /** Dtype of dense weights; undefined keeps what the file has. */
  readonly dtype?: FloatDType;
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
        else loaded.set(slot.name, await loading.tensor(slot));
      } catch (error) {
        throw namingFile(error, checkpoint.tensors.get(survey.stored.get(slot.name) ?? ''));
      }
    }
    await loading.finish();
    return { slots: settled, quantization: survey.quantization };
  } finally {
    loading.close();
  }
}

/** The state of one load: open files, and how much is on its way. */
class Loading {
  readonly #files = new Map<string, { readonly id: number; close(): void }>();
  #bytes = 0;
  /** Looks at what was queued since the last progress. */
  #checks: Promise<void>[] = [];
  #inFlight: Promise<void> = Promise.resolve();

  constructor(
    private readonly checkpoint: Checkpoint,
    private readonly options: LoadOptions,
    private readonly survey: WeightSurvey,
  ) {}

  async tensor(slot: TensorSlot): Promise<Tensor> {
    const entry = this.checkpoint.tensor(this.survey.stored.get(slot.name)!);
    checkShape(entry, slot.shape);
    const tensor = await this.#dense(entry);
    slot.load(tensor);
    await this.#progress(entry);
    return tensor;
  }

  async linear(slot: LinearSlot, loaded: ReadonlyMap<string, Tensor>): Promise<void> {
    if (slot.tiedTo !== undefined) {
      slot.load({ kind: 'dense', shape: slot.shape, values: loaded.get(slot.tiedTo)! }, { shared: true });
      return;
    }
    const stored = recogniseWeight(this.checkpoint, this.survey.stored.get(slot.name)!);
    if (stored.format === 'bnb-4bit') slot.load(await this.#bnb4(slot, stored));
    else if (stored.format === 'bnb-int8') slot.load(await this.#int8(slot, stored));
    else {
      checkShape(stored.weight, slot.shape);
      const quantize = (this.options.quantizer ?? keepDense)(slot);
      slot.load(
        quantize
          ? await this.#quantized(stored.weight, quantize)
          : { kind: 'dense', shape: slot.shape, values: (await this.#dense(stored.weight)).keep() },
      );
    }
    await this.#progress(stored.weight);
  }

  async finish(): Promise<void> {
    await this.#inFlight;
    await this.options.backend.flush();
    await this.#checkFiles();
    this.options.backend.trim();
  }

  close(): void {
    for (const file of this.#files.values()) file.close();
  }

  /** A dense tensor that stays: the file's own pages where the device can use them, else a copy. */
  async #dense(entry: TensorEntry): Promise<Tensor> {
    const { backend, dtype, signal } = this.options;
    if (this.options.checkFinite) await checkFinite(this.checkpoint, entry, { signal });
    const aligned = entry.elements === 0 || entry.offset % (entry.bytes / entry.elements) === 0;
    if (!isFloat(entry.dtype))
      throw new CheckpointError(op, `a weight is stored as ${entry.dtype}`, {
        file: entry.file,
        tensor: entry.name,
        fix: 'the model wants a float tensor here',
      });
    if (!dtype || dtype === entry.dtype) {
      return aligned
        ? backend.mapFile(this.#open(entry.file), entry.offset, entry.shape, entry.dtype)
        : backend.loadFile(this.#open(entry.file), entry.offset, entry.shape, entry.dtype);
    }
    return backend.scope(() => {
      const out = backend.allocate(entry.shape, dtype);
      backend.submit('cast', { x: this.#temporary(entry).ref(), out: out.ref() });
      return out;
    });
  }

  /** How to compute with quantized weights: what the caller gives, else what the tensors and config.json say. */
  #settings(): BitsAndBytesConfig | undefined {
    const given = this.options.stored;
    const fits = given?.quantMethod === 'bitsandbytes' && given.isQuantizable;
    return (fits ? given : this.survey.quantization) as BitsAndBytesConfig | undefined;
  }

  #temporary(entry: TensorEntry): Tensor {
    return this.options.backend.loadFile(this.#open(entry.file), entry.offset, entry.shape, entry.dtype, {
      pooled: true,
    });
  }

  /** Reads, casts to the model's dtype as Python does before it quantizes, and quantizes. */
  async #quantized(entry: TensorEntry, quantize: (dense: Tensor) => Weight): Promise<Weight> {
    const { backend, dtype, signal } = this.options;
    if (this.options.checkFinite) await checkFinite(this.checkpoint, entry, { signal });
    let weight: Weight | undefined;
    backend.scope(() => {
      const dense = this.#temporary(entry);
      weight = quantize(dtype && dtype !== entry.dtype ? cast(dense, dtype) : dense);
    });
    const check = checkQuantized(entry, weight!);
    check.catch(() => undefined); // it is awaited with the queue
    this.#checks.push(check);
    return weight!;
  }

  /** Runs `make`, and frees the tensors that it took when it fails. */
  async #owning<T>(make: (own: <A extends Tensor>(tensor: A) => A) => Promise<T>): Promise<T> {
    const owned: Tensor[] = [];
    try {
      return await make((tensor) => {
        owned.push(tensor.keep());
        return tensor;
      });
    } catch (error) {
      for (const tensor of owned) tensor.dispose();
      throw error;
    }
  }

  async #bnb4(slot: LinearSlot, stored: StoredBnb4bit): Promise<Weight> {
    const { checkpoint, options } = this;
    const { backend, signal } = options;
    const state = await read4bitState(checkpoint, stored, { signal });
    checkShape({ ...stored.weight, shape: state.shape }, slot.shape);
    checkQuantMap(stored.quantMap, await checkpoint.read(stored.quantMap, { signal }), stored.quantType);
    const bnb = this.#settings();
    return this.#owning(async (own) => {
      const codes = own(
        backend.loadFile(this.#open(stored.weight.file), stored.weight.offset, [stored.weight.bytes], 'u8'),
      );
      const absmax = own(await this.#checked(stored.absmax, !stored.nested));
      const weight = {
        kind: 'bnb4',
        shape: slot.shape,
        quantType: stored.quantType,
        blockSize: state.blockSize,
        codes,
        dtype: state.dtype,
        computeDtype: bnb ? computeDtypeOf(bnb) : 'f32',
      } as const;
      if (!state.nested || !stored.nestedAbsmax || !stored.nestedQuantMap) return { ...weight, absmax };
      checkNestedQuantMap(stored.nestedQuantMap, await checkpoint.read(stored.nestedQuantMap, { signal }));
      const nested = own(await this.#checked(stored.nestedAbsmax, true));
      const codebook = own(await this.#checked(stored.nestedQuantMap, false));
      const offset = own(backend.allocate([1], 'f32'));
      backend.assign(offset, [state.nested.offset]);
      return {
        ...weight,
        absmax: { codes: absmax, absmax: nested, codebook, offset, blockSize: state.nested.blockSize },
      };
    });
  }

  async #int8(slot: LinearSlot, stored: StoredBnbInt8): Promise<Weight> {
    checkShape(stored.weight, slot.shape);
    if (stored.weightFormat)
      checkWeightFormat(stored, await this.checkpoint.read(stored.weightFormat, { signal: this.options.signal }));
    const bnb = this.#settings();
    return this.#owning(async (own) => {
      const codes = own(
        this.options.backend.loadFile(this.#open(stored.weight.file), stored.weight.offset, stored.weight.shape, 'i8'),
      );
      return {
        kind: 'int8',
        shape: slot.shape,
        codes,
        absmax: own(await this.#checked(stored.scb, true)),
        threshold: bnb?.llmInt8Threshold ?? 6,
      };
    });
  }

  /** A small tensor whose numbers are looked at on the way to the device. */
  async #checked(entry: TensorEntry, scales: boolean): Promise<Tensor> {
    const bytes = await this.checkpoint.read(entry, { signal: this.options.signal });
    if (scales) checkScales(entry, bytes);
    const tensor = this.options.backend.allocate([entry.elements], entry.dtype);
    this.options.backend.upload(tensor, bytes);
    return tensor;
  }

  #open(path: string): { readonly id: number } {
    let file = this.#files.get(path);
    if (!file)
      this.#files.set(path, (file = this.options.backend.openFile(path) as { readonly id: number; close(): void }));
    return file;
  }

  /** Throws CheckpointError when a file is not the one any more whose header was read. */
  async #checkFiles(): Promise<void> {
    for (const path of this.#files.keys()) {
      const was = this.checkpoint.identity(path);
      if (was) checkUnchanged(was, await currentIdentity(path), path, 'its header was read');
    }
  }

  /** Lets the device fall at most one tensor behind. */
  async #progress(entry: TensorEntry): Promise<void> {
    const checks = this.#checks.splice(0);
    const queued = Promise.all([this.options.backend.flush(), ...checks]).then(
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

function checkShape(entry: Pick<TensorEntry, 'name' | 'file' | 'shape'>, expected: readonly number[]): void {
  if (entry.shape.length === expected.length && entry.shape.every((size, axis) => size === expected[axis])) return;
  throw new CheckpointError(op, 'a tensor has another shape than the model', {
    file: entry.file,
    tensor: entry.name,
    got: entry.shape,
    expected,
    why: 'config.json and the weights belong to different models',
  });
}
