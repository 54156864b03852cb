// How bitsandbytes spreads one LLM.int8 Linear over tensors of a checkpoint. Pure data: names in, names out.

/** Names of the tensors that hold one LLM.int8 weight. */
export interface BnbInt8Names {
  /** i8 [out, in], row by row. */
  weight: string;
  /** f32 [out]: absmax of each row. */
  scb: string;
  /** u8 scalar, 0 = row major. */
  weightFormat: string;
}

/**
 * The names that bitsandbytes gives to the tensors of an int8 weight; `module` is the Linear,
 * `model.layers.0.mlp.up_proj`.
 */
export const bnbInt8Names = (module: string): BnbInt8Names => ({
  weight: `${module}.weight`,
  scb: `${module}.SCB`,
  weightFormat: `${module}.weight_format`,
});

const part = /^(.+)\.(SCB|weight_format)$/;

/** The parameter that a helper tensor belongs to: `a.SCB` → `a.weight`; `undefined` for any other tensor. */
export function bnbInt8Owner(name: string): string | undefined {
  const module = part.exec(name)?.[1];
  return module === undefined ? undefined : `${module}.weight`;
}
