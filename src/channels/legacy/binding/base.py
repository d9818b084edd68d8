"""The base of data binding: it has no protocol of its own.

Outbound, Django's signals before and after a save or delete lead to these calls:

    pre_save_receiver, pre_delete_receiver     pre_change_receiver    groups that know the object
    post_save_receiver, post_delete_receiver   post_change_receiver   groups that shall know it
                                               send_messages          delete, update, create

Inbound, a message goes through `trigger_inbound`: `deserialize`, then `run_action`, which asks
`has_permission` and calls `create`, `update` or `delete`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

from django.apps import apps
from django.db.models import Model
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

from channels.legacy.auth import channel_session_user
from channels.legacy.channel import Group
from channels.legacy.generic.base import Handler
from channels.legacy.message import Message
from channels.legacy.sessions import channel_session

CREATE: Final = "create"
UPDATE: Final = "update"
DELETE: Final = "delete"

#: What `fields` holds for all fields.
ALL_FIELDS: Final = "__all__"


class BindingMetaclass(type):
    """Registers each binding class: at once, or with the application `channels` if models load."""

    #: All binding classes, the abstract ones too.
    binding_classes: ClassVar[list[type[Binding]]] = []
    #: Those that wait for the models.
    _waiting: ClassVar[list[type[Binding]]] = []

    def __new__(
        mcs, name: str, bases: tuple[type, ...], body: dict[str, Any], **kwargs: Any
    ) -> Any:
        made: Any = super().__new__(mcs, name, bases, body, **kwargs)
        mcs.binding_classes.append(made)
        if apps.models_ready:
            made.register()
        else:
            mcs._waiting.append(made)
        return made

    @classmethod
    def register_all(cls) -> None:
        """Register the classes that wait for the models, which are loaded now."""
        while cls._waiting:
            cls._waiting.pop(0).register()

    @property
    def consumer(cls: type[Binding]) -> Handler:  # type: ignore[misc] # it is that of `Binding`
        """The consumer of inbound messages, for a route or a demultiplexer."""
        return cls.get_handler()


class Binding(metaclass=BindingMetaclass):
    """Sends a model's changes to groups, and lets clients change its rows.

    Attributes:
        model: The model, or "app_label.Model".  None in the class's own body: it is abstract.
        stream: The name of the stream that carries the changes.
        fields: Names of the fields that are sent and may be written; `["__all__"]` for all.
        exclude: The names of all others instead.
        channel_session_user: Whether inbound messages have the channel session's user.
        signal_kwargs: What came with the signal, while changes are sent.
    """

    model: Any = None
    stream: str | None = None
    fields: Sequence[str] | None = None
    exclude: Sequence[str] | None = None
    channel_session_user: bool = True
    signal_kwargs: Mapping[str, Any] | None = None
    #: "app_label.model" in lower case, once it is registered.
    model_label: str = ""

    message: Message
    kwargs: Mapping[str, Any]
    user: Any

    @classmethod
    def register(cls) -> None:
        """Follow the model's signals; an abstract class has none.

        Raises:
            ValueError: If `model`, or both of `fields` and `exclude`, are missing.
            LookupError: If `model` names no model.
        """
        if cls.model is None:
            if "model" in vars(cls):
                return
            raise ValueError(
                f"{cls.__name__} has no model: set `model`, to None if it is abstract."
            )
        if cls.fields is None and cls.exclude is None:
            raise ValueError(
                f"{cls.__name__} does not say which fields it sends: set `fields`, to "
                f"[{ALL_FIELDS!r}] for all, or `exclude`."
            )
        if isinstance(cls.model, str):
            cls.model = apps.get_model(cls.model)
        cls.model_label = cls.model._meta.label_lower
        for model in cls.get_registered_models():
            pre_save.connect(cls.pre_save_receiver, sender=model)
            post_save.connect(cls.post_save_receiver, sender=model)
            pre_delete.connect(cls.pre_delete_receiver, sender=model)
            post_delete.connect(cls.post_delete_receiver, sender=model)

    @classmethod
    def get_registered_models(cls) -> Iterable[type[Model]]:
        """The models whose changes are sent; override it for proxies and children."""
        return [cls.model]

    # Outbound.

    @classmethod
    def pre_save_receiver(cls, instance: Model, **kwargs: Any) -> None:  # noqa: ARG003 - signal
        cls.pre_change_receiver(instance, CREATE if instance._state.adding else UPDATE)

    @classmethod
    def post_save_receiver(cls, instance: Model, created: bool, **kwargs: Any) -> None:
        cls.post_change_receiver(instance, CREATE if created else UPDATE, **kwargs)

    @classmethod
    def pre_delete_receiver(cls, instance: Model, **kwargs: Any) -> None:  # noqa: ARG003 - signal
        cls.pre_change_receiver(instance, DELETE)

    @classmethod
    def post_delete_receiver(cls, instance: Model, **kwargs: Any) -> None:
        cls.post_change_receiver(instance, DELETE, **kwargs)

    @classmethod
    def pre_change_receiver(cls, instance: Model, action: str) -> None:
        """Note the groups that know the object before a change."""
        known = set() if action == CREATE else set(cls.group_names(instance))
        vars(instance).setdefault("_binding_group_names", {})[cls] = known

    @classmethod
    def post_change_receiver(cls, instance: Model, action: str, **kwargs: Any) -> None:
        """Tell the groups that no longer know the object, still know it, and are new to it."""
        before = vars(instance)["_binding_group_names"][cls]
        after = set() if action == DELETE else set(cls.group_names(instance))
        self = cls()
        self.send_messages(instance, before - after, DELETE, **kwargs)
        self.send_messages(instance, before & after, UPDATE, **kwargs)
        self.send_messages(instance, after - before, CREATE, **kwargs)

    def send_messages(
        self, instance: Model, group_names: Iterable[str], action: str, **kwargs: Any
    ) -> None:
        """Send one change to some groups; nothing is sent if `serialize` returns an empty dict.

        Raises:
            ValueError: If the class has no `stream`.
        """
        names = sorted(group_names)
        if not names:
            return
        self.signal_kwargs = kwargs
        payload = self.serialize(instance, action)
        if not payload:
            return
        if self.stream is None:
            raise ValueError(
                f"{type(self).__name__} has no stream to send on: set `stream` to its name."
            )
        message = self.encode(self.stream, payload)
        for name in names:
            Group(name).send(message)

    @classmethod
    def group_names(cls, instance: Model) -> Iterable[str]:
        """Override it: the groups that know an object.

        It is asked before a change and after it, each time with the object as it is in memory.
        """
        raise NotImplementedError(_MISSING.format(cls.__name__, "group_names"))

    def serialize(self, instance: Model, action: str) -> Mapping[str, Any]:
        """Override it: the payload that tells of a change."""
        raise NotImplementedError(_MISSING.format(type(self).__name__, "serialize"))

    @classmethod
    def encode(cls, stream: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Override it: the message that carries a payload to a client."""
        raise NotImplementedError(_MISSING.format(cls.__name__, "encode"))

    # Inbound.

    @classmethod
    def get_handler(cls) -> Handler:
        """The consumer of inbound messages, in its decorators."""
        if cls.channel_session_user:
            return channel_session_user(cls.trigger_inbound)
        return channel_session(cls.trigger_inbound)

    @classmethod
    def trigger_inbound(cls, message: Message, **kwargs: Any) -> None:
        """Handle a message that asks for a change."""
        # The user model can be imported only once the models are loaded.
        from django.contrib.auth.models import AnonymousUser  # noqa: PLC0415

        self = cls()
        self.message = message
        self.kwargs = kwargs
        self.user = getattr(message, "user", None) or AnonymousUser()
        action, pk, data = self.deserialize(message)
        self.run_action(action, pk, data)

    def deserialize(self, message: Message) -> tuple[str, Any, Any]:
        """Override it: (action, primary key, data) of a message."""
        raise NotImplementedError(_MISSING.format(type(self).__name__, "deserialize"))

    def run_action(self, action: str, pk: Any, data: Any) -> None:
        """Do what a client asks for, if it may; else nothing happens.

        Raises:
            ValueError: If there is no such action.
        """
        if not self.has_permission(self.user, action, pk):
            return
        if action == CREATE:
            self.create(data)
        elif action == UPDATE:
            self.update(pk, data)
        elif action == DELETE:
            self.delete(pk)
        else:
            raise ValueError(f"action={action!r}: expected {CREATE}, {UPDATE} or {DELETE}.")

    def has_permission(self, user: Any, action: str, pk: Any) -> bool:
        """Override it: whether a user may do this; `pk` is None for a new object."""
        raise NotImplementedError(_MISSING.format(type(self).__name__, "has_permission"))

    def create(self, data: Any) -> None:
        """Override it: make an object."""
        raise NotImplementedError(_MISSING.format(type(self).__name__, "create"))

    def update(self, pk: Any, data: Any) -> None:
        """Override it: change an object."""
        raise NotImplementedError(_MISSING.format(type(self).__name__, "update"))

    def delete(self, pk: Any) -> None:
        """Delete an object; one that does not exist is no error."""
        self.model._default_manager.filter(pk=pk).delete()


_MISSING = "{} must implement {}()."
