import { CheckpointError, DisposedError } from '@q/config';
import type { Shape, Tensor } from '@q/tensor';

/** Why a weight cannot be used. */
export const unavailable = (what: string, disposed: boolean): CheckpointError | DisposedError =>
  disposed
    ? new DisposedError('model', `${what} was used after the model was disposed`)
    : new CheckpointError('model', `${what} was used before it was loaded`);

/** What is particular to a parameter. Default: nothing. */
export interface ParameterOptions {
  /** Files may lack it: then it stays unloaded, and the module computes without it. */
  readonly optional?: boolean;
  /** Python registers it as a buffer. */
  readonly isBuffer?: boolean;
  /** It is float32 whatever the dtype of the others (`_keep_in_fp32_modules_strict`). */
  readonly inFp32?: boolean;
}

/** A tensor that a module needs; the loader fills it. */
export class Parameter {
  #tensor: Tensor | undefined;
  #shared = false;
  #disposed = false;

  constructor(
    readonly shape: Shape,
    readonly options: ParameterOptions = {},
  ) {}

  get loaded(): boolean {
    return this.#tensor !== undefined;
  }

  /** @throws CheckpointError before loading, DisposedError after {@link dispose} */
  get tensor(): Tensor {
    if (!this.#tensor) throw unavailable(`a parameter of shape [${this.shape}]`, this.#disposed);
    return this.#tensor;
  }

  /** Gives the parameter its tensor; `shared`: another one owns it (tied embeddings). */
  load(value: Tensor, { shared = false } = {}): void {
    this.#tensor = shared ? value : value.keep();
    this.#shared = shared;
    this.#disposed = false;
  }

  dispose(): void {
    if (!this.#shared) this.#tensor?.dispose();
    this.#tensor = undefined;
    this.#disposed = true;
  }
}

/**
 * A tensor that the Python module computes when it is built: part of plans and of the memory footprint, not of
 * checkpoints.
 */
export interface ModuleBuffer {
  readonly shape: Shape;
  readonly dtype: 'float32' | 'int64' | 'bool';
}

/**
 * A node of a model. Children and parameters are registered under the names that checkpoints use, in the order in which
 * the Python module registers them (placement plans follow that order).
 */
export abstract class Module {
  /** Class name of the Python module, which placement plans and `noSplit` lists refer to. */
  abstract readonly className: string;
  readonly children = new Map<string, Module>();
  readonly parameters = new Map<string, Parameter>();
  readonly buffers = new Map<string, ModuleBuffer>();
  #place: { readonly parent: Module; readonly name: string } | undefined;

  protected child<M extends Module>(name: string, module: M): M {
    this.children.set(name, module);
    module.#place = { parent: this, name };
    return module;
  }

  /** The path of a child in the whole model, which reports name. */
  pathOf(child: string): string {
    return this.#place ? this.#place.parent.pathOf(`${this.#place.name}.${child}`) : child;
  }

  /** Several children, in the order of the object. */
  protected childrenNamed(modules: Readonly<Record<string, Module>>): void {
    for (const [name, module] of Object.entries(modules)) this.child(name, module);
  }

  protected parameter(name: string, shape: Shape, options?: ParameterOptions): Parameter {
    const parameter = new Parameter(shape, options);
    this.parameters.set(name, parameter);
    return parameter;
  }

  /** This module and all below it, depth first, with their dotted paths. */
  *walk(path = ''): Generator<{ path: string; module: Module }> {
    yield { path, module: this };
    for (const [name, child] of this.children) yield* child.walk(path ? `${path}.${name}` : name);
  }

  /** Frees everything below. */
  dispose(): void {
    for (const parameter of this.parameters.values()) parameter.dispose();
    for (const child of this.children.values()) child.dispose();
  }
}

/** A list of modules, named by index. */
export class ModuleList<M extends Module> extends Module {
  readonly className = 'ModuleList';

  constructor(readonly items: readonly M[]) {
    super();
    items.forEach((item, index) => this.child(String(index), item));
  }
}
