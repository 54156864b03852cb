// Checkpoints of the first BERT models call scale and shift of layer norms as TensorFlow does.

const legacy: Readonly<Record<string, string>> = { gamma: 'weight', beta: 'bias' };

/** The tensors with their present names as well, and from those to the names in the checkpoint. */
export function withPresentNames<T>(tensors: ReadonlyMap<string, T>): {
  readonly tensors: ReadonlyMap<string, T>;
  readonly original: ReadonlyMap<string, string>;
} {
  const original = new Map<string, string>();
  const both = new Map(tensors);
  for (const [name, tensor] of tensors) {
    const [, owner, last] = /^(.*LayerNorm)\.(gamma|beta)$/.exec(name) ?? [];
    if (owner === undefined) continue;
    const present = `${owner}.${legacy[last]}`;
    if (tensors.has(present)) continue;
    both.set(present, tensor);
    original.set(present, name);
  }
  return original.size === 0 ? { tensors, original } : { tensors: both, original };
}
