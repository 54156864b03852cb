import {
  assertCallback,
  assertKnownKeys,
  assertSignal,
  ConfigError,
  describeValue,
  DisposedError,
  type GenerationConfig,
  type QuantizationConfig,
} from '@q/config';
import type { EngineOptions } from '@q/generate';
import { SafetensorsWriter, storedTensors, type WriteProgress } from '@q/loader';
import { bufferBytes, stateBytes, type Model, type ModelConfig } from '@q/models';
import {
  weightBytes,
  weightFootprint,
  weightLabel,
  type Backend,
  type FloatDType,
  type ParameterSlot,
} from '@q/tensor';
import { forwardBatch } from './forward.js';
import type { ForwardInput } from './forward-input.js';
import type { ModelOutput } from './model-output.js';
import { isTokenizerFile, tokenizerFiles } from './saved-files.js';
import type { Tokenizer } from './tokenizer/tokenizer.js';

/** What a loaded model is made of; `fromPretrained` puts it together. */
export interface ModelParts<M extends Model = Model> {
  readonly config: ModelConfig;
  readonly generationConfig: GenerationConfig;
  readonly tokenizer: Tokenizer | undefined;
  /** Why there is no tokenizer although the folder has files for one; thrown when one is needed. */
  readonly tokenizerProblem?: Error;
  readonly backend: Backend;
  readonly model: M;
  readonly slots: readonly ParameterSlot[];
  /** Quantization of the weights as they are now. */
  readonly quantizationConfig: QuantizationConfig | undefined;
  readonly engine: EngineOptions;
  /** Folder of the checkpoint, for the files that saving copies; undefined for dummy weights. */
  readonly folder: string | undefined;
  readonly warnings: readonly string[];
}

export interface SaveOptions {
  /** Most bytes per file. Default `5GB`. */
  readonly maxShardSize?: string | number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: WriteProgress) => void;
}

/** How the linear layers are kept. */
export interface QuantizationSummary {
  /** Layers by format: `dense`, `nf4`, `fp4`, `int8`. */
  readonly linears: Readonly<Record<string, number>>;
  /** Bytes by format; `other` is everything that is no linear layer. */
  readonly bytes: Readonly<Record<string, number>>;
  readonly parameters: number;
}

/** A model on its device. Dispose it (`await using`, or `dispose()`) to free its memory. */
export class PretrainedModel<M extends Model = Model> implements AsyncDisposable {
  /** Aborts, with a DisposedError, when the model is disposed. */
  protected readonly closing = new AbortController();
  #disposing: Promise<void> | undefined;

  constructor(protected readonly parts: ModelParts<M>) {}

  get config(): ModelConfig {
    return this.parts.config;
  }

  get generationConfig(): GenerationConfig {
    return this.parts.generationConfig;
  }

  get tokenizer(): Tokenizer | undefined {
    return this.parts.tokenizer;
  }

  get quantizationConfig(): QuantizationConfig | undefined {
    return this.parts.quantizationConfig;
  }

  /**
   * What was passed over or mended while loading, a line each: keys of config.json without effect, tensors that the
   * model does not have, a quantization_config that the weights contradict.
   */
  get warnings(): readonly string[] {
    return this.parts.warnings;
  }

  /** The device it computes on. */
  get backend(): Backend {
    return this.parts.backend;
  }

  /** Where the modules are: `{ '': 'cpu' }` when all are in one place. */
  get hfDeviceMap(): Readonly<Record<string, string>> {
    return { '': this.backend.name };
  }

  /**
   * One pass over a padded batch.
   * @returns what the model has of hidden states and logits; zero where the mask is 0. The caller disposes it.
   * @throws ConfigError for ids that are none, that do not fit together with the mask, or are more than the context,
   *   and for inputs that the model does not read; DisposedError
   */
  forward(input: ForwardInput): ModelOutput {
    this.assertLive('forward');
    return forwardBatch(this.parts, input);
  }

  /**
   * Bytes of parameters and buffers as Python's `get_memory_footprint()` counts them: codes of quantized weights, but
   * not their scales. {@link weightBytes} is what they really take.
   */
  getMemoryFootprint(options: { returnBuffers?: boolean } = {}): number {
    this.assertLive('getMemoryFootprint');
    assertKnownKeys('getMemoryFootprint', options, ['returnBuffers']);
    const { returnBuffers = true } = options;
    const { slots, model } = this.parts;
    const parameters = slots.reduce((sum, slot) => {
      if (slot.tiedTo !== undefined) return sum;
      if (slot.kind === 'tensor') return sum + slot.current().bytes;
      return sum + weightFootprint(slot.current());
    }, 0);
    return parameters + (returnBuffers ? bufferBytes(model) : 0);
  }

  /** What was quantized, and to what. */
  summary(): QuantizationSummary {
    this.assertLive('summary');
    const linears: Record<string, number> = {};
    const bytes: Record<string, number> = {};
    let parameters = 0;
    for (const slot of this.parts.slots) {
      const shared = slot.tiedTo !== undefined;
      if (!shared) parameters += slot.shape.reduce((a, b) => a * b, 1);
      if (slot.kind === 'tensor') bytes.other = (bytes.other ?? 0) + (shared ? 0 : slot.current().bytes);
      else {
        const weight = slot.current();
        const format = weightLabel(weight);
        linears[format] = (linears[format] ?? 0) + 1;
        if (!shared) bytes[format] = (bytes[format] ?? 0) + weightBytes(weight);
      }
    }
    return { linears, bytes, parameters };
  }

  /** Dtype of the weights that are not quantized. */
  get dtype(): FloatDType {
    this.assertLive('dtype');
    return this.parts.slots.find((slot) => slot.kind === 'tensor')!.current().dtype as FloatDType;
  }

  /**
   * Bytes of weights that each decode step reads: all but the embedding table, of which it reads a row for each
   * sequence.
   */
  get decodeWeightBytes(): number {
    this.assertLive('decodeWeightBytes');
    return this.parts.slots.reduce((sum, slot) => {
      if (slot.kind === 'linear') return sum + weightBytes(slot.current());
      return slot.shape.length === 1 ? sum + slot.current().bytes : sum;
    }, 0);
  }

  /** Bytes of all weights on the device, scales included. */
  get weightBytes(): number {
    return Object.values(this.summary().bytes).reduce((a, b) => a + b, 0);
  }

  /** Bytes of cache for each token of context and sequence. */
  get cacheBytesPerToken(): number {
    this.assertLive('cacheBytesPerToken');
    const { model, engine } = this.parts;
    return stateBytes(model, engine.kvDtype ?? engine.dtype).perToken;
  }

  /**
   * Writes the model as it is, quantized or not, so that it loads again here and in Python, with all tokenizer and
   * processor files of the folder it came from. What the folder held of an earlier save is replaced as a whole: a
   * failure leaves it as it was, and a process that is killed leaves the old model, the new one, or a folder that
   * loading refuses.
   * @returns names of the files
   * @throws ConfigError for a folder that is no path and for options; DisposedError; the signal's reason on abort
   */
  async savePretrained(folder: string, options: SaveOptions = {}): Promise<string[]> {
    this.assertLive('savePretrained');
    assertKnownKeys('savePretrained', options, ['maxShardSize', 'signal', 'onProgress']);
    checkSaveArguments(folder, options);
    const { config, slots, quantizationConfig, generationConfig, folder: source } = this.parts;
    const tensors = new Map((await storedTensors(slots)).map((tensor) => [tensor.name, tensor]));
    const writer = new SafetensorsWriter(folder, options);
    for (const { name, dtype, shape } of tensors.values()) writer.declare({ name, dtype, shape });
    writer.addFile(
      'config.json',
      config.toText({
        quantizationConfig: quantizationConfig ?? null,
        ...this.#savedDtype(),
        ...this.#savedClass(),
      }),
    );
    writer.addFile('generation_config.json', generationConfig.toText());
    const copied = source === undefined ? new Map<string, Uint8Array>() : await tokenizerFiles(source, options.signal);
    for (const [name, content] of copied) writer.addFile(name, content);
    if (copied.size > 0) writer.replaceFiles(isTokenizerFile); // those of another model would mix with these
    return writer.write((spec) => tensors.get(spec.name)!.bytes());
  }

  /** The dtype of the dense weights, when it is not what the config says. */
  #savedDtype(): { dtype?: 'float32' | 'float16' | 'bfloat16' } {
    const names: Record<FloatDType, 'float32' | 'float16' | 'bfloat16'> = {
      f32: 'float32',
      f16: 'float16',
      bf16: 'bfloat16',
    };
    const dtype = names[this.dtype];
    return dtype !== this.config.dtype ? { dtype } : {};
  }

  /** The Python class, when it is none that the config names. */
  #savedClass(): { architectures?: string[] } {
    const { className } = this.parts.model;
    return this.config.architectures.includes(className) ? {} : { architectures: [className] };
  }

  /**
   * Frees weights, cache and device. What runs or waits ends with a DisposedError, as does every later call; disposing
   * again only waits.
   */
  dispose(): Promise<void> {
    return (this.#disposing ??= this.#free());
  }

  async #free(): Promise<void> {
    this.closing.abort(new DisposedError('model', 'the model was disposed'));
    await this.stop();
    this.parts.model.dispose();
    await this.backend.close();
  }

  /** Ends what runs; called once, before the weights go. */
  protected stop(): Promise<void> {
    return Promise.resolve();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }

  /** @throws DisposedError */
  protected assertLive(op: string): void {
    if (this.#disposing) throw new DisposedError(op, 'the model was disposed', { fix: 'load it again' });
  }
}

/** @throws ConfigError */
function checkSaveArguments(folder: unknown, { signal, onProgress }: SaveOptions): void {
  if (typeof folder !== 'string' || folder.trim() === '')
    throw new ConfigError('savePretrained', `the folder is ${describeValue(folder)}`, {
      fix: 'give the path of a folder; it is made where there is none',
    });
  assertSignal('savePretrained', signal);
  assertCallback('savePretrained', 'onProgress', onProgress);
}
