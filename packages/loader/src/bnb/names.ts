// How bitsandbytes spreads one quantized Linear over tensors of a checkpoint. Pure data: names in, names out.

export type Bnb4bitType = 'nf4' | 'fp4';

/**
 * Names of the tensors that hold one 4-bit weight; `parameter` is the full name, `model.layers.0.mlp.up_proj.weight`.
 */
export interface Bnb4bitNames {
  /** Packed codes, two per byte. */
  weight: string;
  absmax: string;
  /** 16 f32: what the codes stand for. */
  quantMap: string;
  /** With double quantization only: absmax of the absmax, and the 256 values of its codes. */
  nestedAbsmax?: string;
  nestedQuantMap?: string;
  /** The quantization state, a JSON text as bytes. */
  quantState: string;
}

/** The names that bitsandbytes gives to the tensors of a 4-bit weight. */
export function bnb4bitNames(parameter: string, quantType: Bnb4bitType, nested: boolean): Bnb4bitNames {
  return {
    weight: parameter,
    absmax: `${parameter}.absmax`,
    quantMap: `${parameter}.quant_map`,
    ...(nested ? { nestedAbsmax: `${parameter}.nested_absmax`, nestedQuantMap: `${parameter}.nested_quant_map` } : {}),
    quantState: `${parameter}.quant_state.bitsandbytes__${quantType}`,
  };
}

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

const part = /^(.+)\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.bitsandbytes__(?:nf4|fp4))$/;
const int8Part = /^(.+)\.(SCB|weight_format)$/;

/**
 * The parameter that a helper tensor belongs to: `a.weight.absmax` → `a.weight`, `a.SCB` → `a.weight`;
 * `undefined` for a tensor that is itself a parameter.
 */
export function bnbOwner(name: string): string | undefined {
  const four = part.exec(name);
  if (four) return four[1];
  const eight = int8Part.exec(name);
  return eight ? `${eight[1]}.weight` : undefined;
}
