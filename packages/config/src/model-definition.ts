import type { z } from 'zod';
import type { ConfigWarning, JsonObject, JsonValue } from './json.js';

/** What a reader is given beside the keys. */
export interface ReadContext {
  /** Opens error messages. */
  readonly op: string;
  /** Takes a line for what is passed over. */
  warn(warning: ConfigWarning): void;
}

/** Reads the config.json of one architecture. */
export interface ModelDefinition<M extends string = string, C extends object = object> {
  readonly modelType: M;
  /** The keys of config.json that it reads, with their checks and defaults. A key without a default must be there. */
  readonly shape: z.ZodRawShape;
  /** Further keys it reads straight from `raw`. */
  readonly alsoReads?: readonly string[];
  /** Values of keys of other architectures that describe what this one does anyway. */
  readonly neutral?: Readonly<Record<string, readonly JsonValue[]>>;
  /** Keys whose default is worth a line: nearly every file has them. */
  readonly expected?: readonly string[];
  /** Special tokens of a file that does not say, as in the Python class. Default none. */
  readonly tokenIds?: { readonly bos?: number; readonly eos?: number; readonly pad?: number };
  /**
   * Keys of which `tie_word_embeddings` is the default: written out when a model is saved with other ties than it was
   * read with.
   */
  followsTies?(config: C): JsonObject;
  /** From checked keys to the typed config. */
  read(keys: Readonly<Record<string, unknown>>, raw: JsonObject, context: ReadContext): C;
}

/** A definition whose keys are typed by their checks. */
interface TypedDefinition<M extends string, C extends object, S extends z.ZodRawShape> extends Omit<
  ModelDefinition<M, C>,
  'shape' | 'read'
> {
  readonly shape: S;
  read(keys: z.output<z.ZodObject<S>>, raw: JsonObject, context: ReadContext): C;
}

/** Defines how an architecture's config.json is read; the checks of its keys are their types. */
export const defineModel = <M extends string, C extends object, S extends z.ZodRawShape>(
  definition: TypedDefinition<M, C, S>,
): ModelDefinition<M, C> => definition;
