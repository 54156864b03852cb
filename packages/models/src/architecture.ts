import { UnsupportedError, type ModelConfigBase, type ModelDefinition } from '@q/config';
import type { Source } from '@q/tensor';
import type { Model, Seq2SeqLM, CausalLM } from './model.js';

/** What each task gives. */
export interface TaskModels {
  /** Hidden states. */
  readonly base: Model;
  /** The next token. */
  readonly causalLM: CausalLM;
  /** The next token of a text that follows from another one. */
  readonly seq2seqLM: Seq2SeqLM;
}

export type Task = keyof TaskModels;

/** Facts that planners and loaders need of an architecture. */
export interface ArchitectureFacts {
  /** Classes whose instances stay on one device. */
  readonly noSplit: readonly string[];
  /** Modules kept in full precision by 8-bit and 4-bit loading unless the config names others. */
  readonly keepDense: readonly string[];
  /** Linear layers that stay unquantized, and in float32 where the others become float16. Default none. */
  readonly keepInFp32?: readonly string[];
  /** Path of the output embeddings; `` when there are none. */
  readonly outputEmbeddings: string;
  /** Where the base model is in a model with a head, and so in most checkpoints: `model`. */
  readonly basePrefix: string;
  /**
   * Modules that files may lack as a whole, by their path in the base model: a model whose file lacks one is built
   * without it. Default none.
   */
  readonly optionalModules?: readonly string[];
  /** Entries of checkpoints that hold no weights of any model here. */
  readonly ignoredTensors: readonly RegExp[];
  /** Parameters that share memory when the config ties them: target to source. */
  readonly tied: Readonly<Record<string, string>>;
  /** Parameters that share memory whatever the config says: target to source. Default none. */
  readonly alwaysTied?: Readonly<Record<string, string>>;
}

/** Settings of every config: what the size of a module tree grows with. */
export interface LayerCounts {
  readonly numLayers: number;
  /** Of encoder-decoders, beside those of the encoder. */
  readonly numDecoderLayers?: number;
}

/** Whether a model is to have one of the optional modules of its architecture. */
export type HasModule = (path: string) => boolean;

/** One file of this package: how its config is read, its models by task, and what is to know of its tensors. */
interface ArchitectureParts<D extends ModelDefinition, C> extends ArchitectureFacts {
  readonly config: D;
  readonly heads: { readonly [T in Task]?: (config: C, has: HasModule) => TaskModels[T] };
  /** Tasks that a config leaves without a model: an encoder alone writes nothing. Default none. */
  readonly lacks?: (config: C) => readonly Task[];
  /**
   * Where files keep a parameter of this name, read and saved: the usual place first, then others that are read too.
   * The parts that are taken of a tensor make it up. Undefined, as by default: a tensor of its own name.
   */
  readonly checkpoint?: (parameter: string, config: C) => readonly Source[] | undefined;
}

type ReadBy<D extends ModelDefinition> = ReturnType<D['read']>;
type AnyConfig = ModelConfigBase & { readonly modelType: string };

/** An architecture: a row of the registry. */
export interface Architecture<D extends ModelDefinition = ModelDefinition> extends ArchitectureFacts {
  readonly modelType: string;
  /** Reads its config.json. */
  readonly config: D;
  /** What a config can be built for; the first is what published checkpoints are. */
  tasks(config: AnyConfig): readonly Task[];
  /**
   * An empty model.
   * @param without optional modules that it is to lack
   * @throws UnsupportedError for a task that it has no head for
   */
  build<T extends Task>(task: T, config: AnyConfig, without?: readonly string[]): TaskModels[T];
  /** Where files keep a parameter; undefined: a tensor of its own name. */
  sources(parameter: string, config: AnyConfig): readonly Source[] | undefined;
}

/** Makes a row of the registry; `heads` in the order of what most checkpoints are. */
export function architecture<D extends ModelDefinition<string, LayerCounts>>(
  parts: ArchitectureParts<D, ReadBy<D>>,
): Architecture<D> {
  const { config: definition, heads, lacks, checkpoint, ...facts } = parts;
  const { modelType } = definition;
  const isOwn = (settings: object): settings is ReadBy<D> => (settings as AnyConfig).modelType === modelType;
  const tasks = (settings: AnyConfig): Task[] => {
    const lacking = isOwn(settings) ? lacks?.(settings) : undefined;
    return (Object.keys(heads) as Task[]).filter((task) => !lacking?.includes(task));
  };
  return {
    ...facts,
    modelType,
    config: definition,
    tasks,
    build(task, config, without = []) {
      const head = heads[task];
      const possible = tasks(config);
      if (head && isOwn(config) && possible.includes(task)) return head(config, (module) => !without.includes(module));
      throw new UnsupportedError('model', `${modelType} has no ${task} model`, {
        why: `it has ${possible.join(', ')}`,
      });
    },
    sources: (parameter, config) => (isOwn(config) ? checkpoint?.(parameter, config) : undefined),
  };
}
