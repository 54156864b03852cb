// Names in checkpoints that the model has outgrown: scale and shift of layer norms as TensorFlow calls them (the first
// BERT models), and modules that an architecture says are called otherwise on disk (GPT-NeoX's `embed_out`).

const legacy: Readonly<Record<string, string>> = { gamma: 'weight', beta: 'bias' };

/** Modules of the model to their names on disk. */
export type NamesOnDisk = Readonly<Record<string, string>>;

interface Renaming {
  /** The name of a tensor in the model, from that in the checkpoint; undefined where it is the same. */
  present(stored: string): string | undefined;
  /** The name under which a parameter of the model is saved that was read from `stored`. */
  saved(parameter: string, stored: string): string;
}

const layerNorms: Renaming = {
  present(stored) {
    const [, owner, last] = /^(.*LayerNorm)\.(gamma|beta)$/.exec(stored) ?? [];
    return owner === undefined ? undefined : `${owner}.${legacy[last]}`;
  },
  saved: (parameter, stored) => parameter.slice(0, parameter.lastIndexOf('.')) + stored.slice(stored.lastIndexOf('.')),
};

/** `from` replaced by `to` where it stands between points in a name; undefined where it does not. */
function replaced(name: string, from: string, to: string): string | undefined {
  const at = `.${name}`.lastIndexOf(`.${from}.`);
  return at < 0 ? undefined : name.slice(0, at) + to + name.slice(at + from.length);
}

const moduleNamed = ([here, there]: readonly [string, string]): Renaming => ({
  present: (stored) => replaced(stored, there, here),
  saved: (parameter) => replaced(parameter, here, there) ?? parameter,
});

export interface PresentNames<T> {
  /** Every tensor, those with an old name under their present one as well. */
  readonly tensors: ReadonlyMap<string, T>;
  /** From a present name to the one in the checkpoint, where they differ. */
  readonly original: ReadonlyMap<string, string>;
  /** The name under which a parameter is saved that was read from the tensor of a present name, where it differs. */
  savedAs(parameter: string, present: string): string | undefined;
}

/** The tensors with their present names as well. A tensor that has its present name already wins over an old one. */
export function withPresentNames<T>(tensors: ReadonlyMap<string, T>, namesOnDisk: NamesOnDisk = {}): PresentNames<T> {
  const renamings = [layerNorms, ...Object.entries(namesOnDisk).map(moduleNamed)];
  const original = new Map<string, string>();
  const by = new Map<string, Renaming>();
  const both = new Map(tensors);
  for (const [name, tensor] of tensors) {
    for (const renaming of renamings) {
      const present = renaming.present(name);
      if (present === undefined || tensors.has(present)) continue;
      both.set(present, tensor);
      original.set(present, name);
      by.set(present, renaming);
    }
  }
  return {
    tensors: both,
    original,
    savedAs: (parameter, present) => by.get(present)?.saved(parameter, original.get(present)!),
  };
}
