"""Every error of Wonder, in one tree: catch the branch that names what you can do about it.

WonderError
├── DefinitionError            your code defines something impossible: fix the definition
│   ├── ConditionError         a condition does not parse, or cannot mean what it says
│   ├── TableError             a transition table has a hole, an unreachable row or an unknown target
│   ├── GraphError             a graph given as data cannot run as it stands
│   ├── SpecError              a training run is specified that cannot be: a schedule, a layer, a size
│   └── PromptError            a prompt template is malformed, or a variable of it was not given
├── RequestError               this request can never succeed as it stands: change it
│   ├── PromptTooLong          prompt and answer do not fit into the model's context
│   ├── UnknownProbe           a concept was asked for that no bundle of this model provides
│   ├── ProbeMismatch          a probe belongs to another model, layer or width
│   ├── CompressorMismatch     a compressor belongs to another model, layer or width
│   ├── UnknownLens            a lens was asked for that this worker, or this registry, does not have
│   ├── LensMismatch           a lens belongs to another model, tokenizer, layer or width
│   ├── InjectionRefused       a vector or prior state cannot be put into this model
│   ├── SettingNotSupported    the model or the engine cannot do what was asked
│   └── AnswerDoesNotParse     the model's text is not a value of the action's output type
├── ModelError                 the model could not be had or could not run
│   ├── ModelNotFound          no such name or folder
│   ├── ModelNotUsable         found, but cannot be loaded or is not a causal language model
│   ├── ModelTimedOut          a call took longer than its action allows, as often as it was tried
│   ├── OutOfMemory            the device has no room for this request (retried)
│   ├── EngineFailed           the engine broke while it served a batch (retried)
│   └── DeviceLost             the device is broken for this process: start the process anew (retried)
├── WorkerMissing              nobody picked the work up in time: start a worker for that queue
├── ArtifactError              an artifact cannot be kept, or what is stored is not what it should be
│   ├── ArtifactMissing        nothing is stored at that address
│   ├── ArtifactCorrupt        the bytes do not have the promised digest
│   ├── StoreNotUsable         no such bucket or folder, or no access to it: correct the address or the rights
│   ├── StoreNotReachable      the store's server does not answer, or cannot now (retried)
│   └── CorruptBundle          a trained bundle is incomplete, changed, or of a refused format
├── CalibrationError           a confidence cannot be calibrated from these labels
│   ├── TooFewLabels           more decisions of people are needed (the message says how many)
│   ├── OneClassOnly           every labelled answer is right, or every one is wrong
│   ├── LabelsContradict       the same answer is called right and wrong
│   ├── SignalMissing          the labelled traces lack the signal that the calibration would read
│   ├── CalibrationMismatch    the labels are of several models, or of another one than was asked for
│   ├── NotPromoted            the new calibration is not as good as the one in force: nothing was moved
│   └── CalibrationConflict    somebody else moved what is in force
├── LensError                  a trained lens cannot come into force
│   ├── LensNotPromoted        it is not as good as the one in force, or as was asked for: nothing was moved
│   └── LensConflict           somebody else moved what is in force
├── RoutingError               a decision cannot be taken
│   ├── NoTrace                `decide` was called before the action ran
│   ├── MessageTooLarge        the text is too long for a message between agents: send a reference
│   └── LoopLimit              the run has visited one action more often than the table allows
├── TrainingError              a training run cannot go on
│   ├── Diverged               the loss is not a finite number: go back a checkpoint, lower the learning rate
│   ├── UnknownRun             no run of that name, or it is over
│   ├── NoProgress             attempt after attempt ended without a new checkpoint: look at the job's log
│   ├── CorruptCheckpoint      a checkpoint is not what was written: go on from an older one
│   ├── DigestMismatch         a checkpoint is of another specification: train into another folder
│   ├── LeaseLost              another attempt has taken the run over: nothing to do
│   └── LauncherError          a job cannot be started, found or stopped
│       ├── JobConflict        a live job already writes to the run folder: wait for it, or cancel it
│       ├── JobRefused         the place does not take such a job: correct what the message names
│       ├── JobLost            nobody knows the job: go on from the last checkpoint under a new key
│       └── LauncherUnavailable  the place does not answer; the job is as it was (retried)
├── HistoryError               past decisions cannot be read or taken again
│   ├── ExportError            a file is not an export, or was written by a newer version
│   └── BacktestError          the records and the table have nothing in common, or there is nothing to compare
├── ReviewError                a reviewer's call was refused; nothing was changed
│   ├── AlreadyDecided         somebody decided first (the message says who and when)
│   ├── ClaimConflict          somebody else holds the item
│   ├── DeadlinePassed         the item is closed: its deadline has passed
│   ├── NotAllowed             the item is not for this person, or the verdict is not on offer
│   ├── DecisionInvalid        the decision is incomplete or an edit does not fit the answer's type
│   ├── ReviewNotFound         no such item
│   └── ReviewTimedOut         nobody decided in time and the author chose to fail
└── SetupError                 the surroundings are wrong: the message says what to start or install
    ├── ServerNotReachable     no Temporal server answers at that address
    ├── ServerNotFound         no Temporal server binary and no address
    ├── StackError             a part of the local stack did not come up, or died
    └── ExtraMissing           an optional dependency is not installed

Messages say what was found, what was wanted and what to do; they are the whole payload, because attributes
do not survive the journey through Temporal.
"""

from typing import ClassVar


class WonderError(Exception):
    """The root of the tree."""

    retryable: ClassVar[bool] = False
    """Whether the same call may succeed when it is simply made again."""


class DefinitionError(WonderError, ValueError):
    """Something is defined that cannot work."""


class ConditionError(DefinitionError):
    """A condition does not parse, names something unknown, or is constant."""


class TableError(DefinitionError):
    """A transition table has a hole, an unreachable row or an unknown target."""


class GraphError(DefinitionError):
    """A graph given as data, or the input of its run, cannot be what it says."""


class SpecError(DefinitionError):
    """A training run cannot be as it is specified."""


class PromptError(DefinitionError):
    """A prompt template is malformed, or a variable of it was not given."""


class RequestError(WonderError):
    """This request can never succeed as it stands."""


class PromptTooLong(RequestError):
    """Prompt and answer do not fit into the model's context."""


class UnknownProbe(RequestError):
    """No bundle of this model provides the concept."""


class ProbeMismatch(RequestError):
    """A probe belongs to another model, layer or width."""


class CompressorMismatch(RequestError):
    """A compressor belongs to another model, layer or width."""


class UnknownLens(RequestError):
    """No lens of that name is there."""


class LensMismatch(RequestError):
    """A lens belongs to another model, tokenizer, layer or width."""


class InjectionRefused(RequestError):
    """A vector, a prior state or a soft-prompt map that does not fit this model, or is no finite number."""


class SettingNotSupported(RequestError):
    """The model or the engine cannot do what was asked."""


class AnswerDoesNotParse(RequestError):
    """The model's text is not a value of the action's output type."""


class ModelError(WonderError):
    """The model could not be had or could not run."""


class ModelNotFound(ModelError):
    """No such name or folder."""


class ModelNotUsable(ModelError):
    """The model was found, but cannot be loaded or is not a causal language model."""


class ModelTimedOut(ModelError):
    """A call took longer than its action allows, as often as it was tried."""


class OutOfMemory(ModelError):
    """The device has no room for this request."""

    retryable: ClassVar[bool] = True


class EngineFailed(ModelError):
    """The engine broke while it served a batch; nothing is known against the request itself."""

    retryable: ClassVar[bool] = True


class DeviceLost(ModelError):
    """The device is broken for this process; another process, or this one started anew, can serve the request."""

    retryable: ClassVar[bool] = True


class WorkerMissing(WonderError):
    """Nobody picked the work up in time."""


class ArtifactError(WonderError):
    """An artifact cannot be kept, or what is stored is not what it should be."""


class ArtifactMissing(ArtifactError):
    """Nothing is stored at that address."""


class ArtifactCorrupt(ArtifactError):
    """The bytes do not have the promised digest."""


class StoreNotUsable(ArtifactError):
    """There is no such bucket or folder, or no access to it."""


class StoreNotReachable(ArtifactError):
    """The store's server does not answer, or cannot serve now."""

    retryable: ClassVar[bool] = True


class CorruptBundle(ArtifactError):
    """A trained bundle is incomplete, changed, or of a refused format."""


class CalibrationError(WonderError):
    """A confidence cannot be calibrated."""


class TooFewLabels(CalibrationError):
    """More labelled answers are needed."""


class OneClassOnly(CalibrationError):
    """Every labelled answer is right, or every one is wrong."""


class LabelsContradict(CalibrationError):
    """The same answer is called right and wrong."""


class SignalMissing(CalibrationError):
    """The labelled traces lack the signal."""


class CalibrationMismatch(CalibrationError):
    """The labels are of several models, or of another one than was asked for."""


class NotPromoted(CalibrationError):
    """The new calibration is not as good as the one in force."""


class CalibrationConflict(CalibrationError):
    """Another calibration is in force than the caller knows."""


class LensError(WonderError):
    """A trained lens cannot come into force."""


class LensNotPromoted(LensError):
    """The lens is not as good as the one in force, or as was asked for."""


class LensConflict(LensError):
    """Another lens is in force than the caller knows."""


class RoutingError(WonderError):
    """A decision cannot be taken."""


class NoTrace(RoutingError):
    """`decide` was called before the action ran."""


class MessageTooLarge(RoutingError):
    """The text of a message between agents does not fit into a history."""


class LoopLimit(RoutingError):
    """The run has visited one action more often than the table allows."""


class TrainingError(WonderError):
    """A training run cannot go on."""


class Diverged(TrainingError):
    """The loss is not a finite number."""


class UnknownRun(TrainingError):
    """There is no run of that name, or it is over."""


class NoProgress(TrainingError):
    """Attempt after attempt ended before it left a new checkpoint."""


class CorruptCheckpoint(TrainingError):
    """A checkpoint is not what was written."""


class LauncherError(TrainingError):
    """A job cannot be started, found or stopped."""


class JobConflict(LauncherError):
    """A live job of another key writes to the same run folder."""


class JobRefused(LauncherError):
    """The place does not take such a job, and will not when asked again."""


class JobLost(LauncherError):
    """The place does not know the job."""


class LauncherUnavailable(LauncherError):
    """The place where jobs run does not answer, or cannot now; the job is as it was."""

    retryable: ClassVar[bool] = True


class LeaseLost(TrainingError):
    """Another attempt has taken the run over; this one publishes nothing more."""


class DigestMismatch(TrainingError):
    """A checkpoint is of another specification than the run that would go on from it."""


class HistoryError(WonderError):
    """Past decisions cannot be had."""


class ExportError(HistoryError):
    """A file does not hold what `wonder export` writes."""


class BacktestError(HistoryError):
    """There is nothing to take again."""


class ReviewError(WonderError):
    """A reviewer's call was refused; nothing was changed."""


class AlreadyDecided(ReviewError):
    """Somebody decided first."""


class ClaimConflict(ReviewError):
    """Somebody else holds the item, or nobody does and the call needs a claim."""


class DeadlinePassed(ReviewError):
    """The item is closed because its deadline has passed."""


class DecisionInvalid(ReviewError):
    """The decision is incomplete, or an edit does not fit the answer's type."""


class NotAllowed(ReviewError):
    """The item is not for this person, or the verdict is not on offer."""


class ReviewNotFound(ReviewError):
    """No such review item."""


class ReviewTimedOut(ReviewError):
    """Nobody decided in time, and the author of the workflow chose to fail then."""


class SetupError(WonderError):
    """The surroundings are wrong."""


class ServerNotReachable(SetupError):
    """No Temporal server answers at the address."""


class ServerNotFound(SetupError):
    """There is neither an address nor a Temporal server binary."""


class StackError(SetupError):
    """A part of the local stack did not come up, or died."""


class ExtraMissing(SetupError):
    """An optional dependency is not installed."""


def _subclasses(root: type[WonderError]) -> dict[str, type[WonderError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found |= _subclasses(child)
    return found


def by_name(name: str) -> type[WonderError] | None:
    """The class of that name, with or without the `wonder.` it carries on the wire."""
    return _subclasses(WonderError).get(name.removeprefix("wonder."))
