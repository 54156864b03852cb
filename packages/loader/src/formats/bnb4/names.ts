// How bitsandbytes spreads one 4-bit Linear over tensors of a checkpoint. Pure data: names in, names out.

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

const part = /^(.+)\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.bitsandbytes__(?:nf4|fp4))$/;

/** The parameter that a helper tensor belongs to: `a.weight.absmax` → `a.weight`; `undefined` for any other tensor. */
export const bnb4bitOwner = (name: string): string | undefined => part.exec(name)?.[1];
